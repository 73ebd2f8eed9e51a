"""An event per published artefact, named as those of Prefect's own assets, so that automations can wait for it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from urllib.parse import quote

from prefect.events import emit_event

from dmp_core.stages import Node, StageOutput
from dmp_core.store import Workspace

PUBLISHED = "prefect.asset.materialization.succeeded"
_MOST_INPUTS = 90
"""Prefect refuses an event with more than 100 related resources; it adds the run, its flow and its tags."""


def url_of(address: str) -> str:
    """`file:///data/demo/report` for a folder of this machine, else the address, e.g. `s3://bucket/demo/report`."""
    return quote(address, safe=":/") if "://" in address else Path(address).absolute().as_uri()


def emit_published(node: Node, workspace: Workspace, output: StageOutput) -> None:
    """The artefact is the event's resource, its inputs are related to it.

    Prefect's decorator `materialize` would emit events for complete artefacts too, and needs their names in advance.
    """
    inputs = {url_of(source.artefact(workspace).address): source.id for source in node.inputs.values()}
    emit_event(
        PUBLISHED,
        resource={"prefect.resource.id": url_of(output.path), "prefect.resource.name": node.id},
        related=[
            {"prefect.resource.id": url, "prefect.resource.role": "asset", "prefect.resource.name": name}
            for url, name in islice(inputs.items(), _MOST_INPUTS)
        ],
        payload={"fingerprint": output.fingerprint, "samples": output.samples, "seconds": output.seconds},
    )
