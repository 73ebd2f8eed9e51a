"""Status of a plan's artefacts: what is complete, and what a run would make."""

from __future__ import annotations

from dmp_core.stages.base import Node
from dmp_core.stages.execute import outdated
from dmp_core.store import Workspace
from dmp_core.store.workspace import Status


def statuses(nodes: list[Node], workspace: Workspace) -> dict[str, Status]:
    """Status of every node by its id, given in the plan's order.

    complete: nothing to do. partial: begun, or shards were lost. stale: an older one exists, made with other settings,
    from other inputs, or from an input that was made again since with another result. missing: never made.
    """
    found: dict[str, Status] = {}
    for node in nodes:
        artefact = node.artefact(workspace)
        status = artefact.status()
        if status == "complete":
            upstream = any(found.get(source.id) == "stale" for source in node.inputs.values())
            done = artefact.manifest()
            status = "stale" if upstream or (done is not None and outdated(node, done, workspace)) else status
        elif status == "missing" and artefact.has_older():
            status = "stale"
        found[node.id] = status
    return found
