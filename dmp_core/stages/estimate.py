"""How long and how large a node will be: from its like in the same workspace, else from typical rates."""

from __future__ import annotations

from typing import Any

from dmp_core.stages.base import Node
from dmp_core.store import Workspace, sidecars
from dmp_core.store.folders import files_below
from dmp_core.store.workspace import known_manifests

A_PASS, A_PASS_ON_A_GPU = 0.006, 0.03
"""Seconds of one image's way through the U-Net, which predictions take besides."""


def estimate_seconds(node: Node, workspace: Workspace) -> tuple[float, int]:
    """(seconds, bytes) that the node is likely to take, less the shards that it has already."""
    seconds, size = _measured(node, workspace) or _typical(node)
    out = node.artefact(workspace)
    made = sum(record.samples for record in sidecars(out) if record.fingerprint == out.fingerprint)
    left = max(0, node.samples - made) if out.manifest() is None else node.samples
    return seconds * left, int(size * left)


def _typical(node: Node) -> tuple[float, float]:
    """Big models are what the paper's sizes come with, in the stage itself or in what it reads."""
    big = any(each.models for each in (node, *node.inputs.values()))
    seconds, size = node.kind.on_a_gpu if big else node.kind.typical
    return seconds + node.config.passes * (A_PASS_ON_A_GPU if big else A_PASS), size


def _measured(node: Node, workspace: Workspace) -> tuple[float, float] | None:
    """Rates of the newest finished artefact of the same stage, and of the same method, in this workspace."""
    folder = node.kind.place(workspace)
    names = [name for name in files_below(workspace.fs, folder) if name.endswith("/manifest.json")]
    paths = [f"{folder}/{name}" for name in names]
    rates, method = [], _method(node.config.model_dump(mode="json"))
    for manifest in known_manifests(workspace, paths).values():
        if manifest.samples and _method(manifest.config) == method:
            total = sum(record.bytes for record in manifest.files)
            rates.append((manifest.created, manifest.seconds / manifest.samples, total / manifest.samples))
    return max(rates)[1:] if rates else None


def _method(stage: dict[str, Any]) -> Any:
    """Which method trains or predicts, and in how many steps: what a sample costs hangs on it."""
    own = stage.get("inference") or stage.get("sampling") or {}
    return stage.get("row") or (stage.get("train") or {}).get("method"), own.get("num_steps")
