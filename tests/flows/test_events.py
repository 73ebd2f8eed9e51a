"""One event per artefact, at its publication: automations of Prefect wait for it."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.events import RelatedResource
from prefect.logging import disable_run_logger
from prefect.types.names import validate_valid_asset_key

from dmp_core.config import load_config
from dmp_core.stages import find, plan
from dmp_core.store import Chunk, Workspace
from tasks import events, progress, run_stage
from tasks.events import PUBLISHED, url_of

CONFIG = load_config(
    "smoke",
    None,
    ["images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1", "shards.samples_per_shard=1"],
)


@pytest.fixture
def sent(monkeypatch) -> list[dict[str, Any]]:
    """What would go to the server."""
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda event, **rest: heard.append({"event": event, **rest}))
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_: None)
    return heard


def test_a_published_artefact_sends_one_event_with_its_inputs_and_a_complete_one_none(sent, tmp_path):
    place, images = Workspace(tmp_path), find(plan(CONFIG), "images/in_domain")
    (prompts,) = images.inputs.values()
    urls = [f"file://{node.artefact(place).path}" for node in (prompts, images)]

    def make(node: str, **given: Any) -> int:
        with disable_run_logger():
            run_stage(CONFIG, node, str(tmp_path), **given)
        return len(sent)

    counts = [
        make(prompts.id),
        make(prompts.id),
        make(images.id, shards=Chunk([0])),
        make(images.id, shards=Chunk([1])),
    ]
    assert [*counts, make(images.id), make(images.id, force=True)] == [1, 1, 1, 1, 2, 3], "a chunk publishes nothing"
    assert [event["resource"]["prefect.resource.id"] for event in sent] == [*urls, urls[1]]
    assert {event["event"] for event in sent} == {PUBLISHED}
    assert sent[0]["related"] == []
    (related,) = sent[1]["related"]
    assert RelatedResource.model_validate(related).role == "asset"
    assert related["prefect.resource.id"] == urls[0]
    assert sent[1]["payload"]["fingerprint"] == images.fingerprint
    assert validate_valid_asset_key(urls[0]) == urls[0]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("/data/my demo/report", "file:///data/my%20demo/report"),
        ("s3://bucket/demo 1/r(1)", "s3://bucket/demo%201/r%281%29"),
    ],
)
def test_addresses_are_urls(address, url):
    assert url_of(address) == url
