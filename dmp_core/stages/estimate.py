"""How long and how large a node will be: from its like in the same workspace, else from typical rates."""

from __future__ import annotations

import json

from dmp_core.stages.plan import Node
from dmp_core.store import Manifest, Workspace
from dmp_core.store.workspace import FOLDERS

TYPICAL = {
    "prompts": (0.45, 200),
    "images": (0.3, 60_000),
    "labels": (0.01, 10_000),
    "shards": (0.01, 40_000),
    "latents": (0.02, 10_000),
    "train": (0.04, 300),
    "predict": (0.06, 10_000),
    "evaluate": (0.05, 500),
    "report": (0.1, 10_000),
}
"""Seconds and bytes a sample on two CPU cores with the mini preset (`benchmarks/`); first guess only."""


def estimate_seconds(node: Node, workspace: Workspace) -> tuple[float, int]:
    """(seconds, bytes) that the node is likely to take."""
    seconds, size = _measured(node, workspace) or TYPICAL[node.stage]
    return seconds * node.samples, int(size * node.samples)


def _measured(node: Node, workspace: Workspace) -> tuple[float, float] | None:
    """Rates of the newest finished artefact of the same stage in this workspace."""
    paths = workspace.fs.glob(f"{workspace.root}/{FOLDERS[node.stage]}/**/manifest.json")
    rates = []
    for path in paths:
        manifest = Manifest.model_validate(json.loads(workspace.fs.cat_file(path)))
        if manifest.samples:
            total = sum(record.bytes for record in manifest.files)
            rates.append((manifest.created, manifest.seconds / manifest.samples, total / manifest.samples))
    return max(rates)[1:] if rates else None
