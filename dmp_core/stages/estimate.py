"""Estimated time and size of a node: from similar nodes in the same workspace, else from typical rates."""

from __future__ import annotations

from typing import Any

from dmp_core.stages.base import Node
from dmp_core.store import Workspace, sidecars
from dmp_core.store.folders import files_below
from dmp_core.store.workspace import known_manifests

A_PASS, A_PASS_ON_A_GPU = 0.006, 0.03
"""Seconds per image and U-Net pass, added for predictions."""


def estimate_seconds(node: Node, workspace: Workspace) -> tuple[float, int]:
    """Estimated (seconds, bytes) of the node, without its finished shards."""
    seconds, size = _measured(node, workspace) or _typical(node)
    out = node.artefact(workspace)
    made = sum(record.samples for record in sidecars(out) if record.fingerprint == out.fingerprint)
    left = max(0, node.samples - made) if out.manifest() is None else node.samples
    return seconds * left, int(size * left)


def _typical(node: Node) -> tuple[float, float]:
    """The GPU's rates if large models are used, in the stage itself or in its inputs."""
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
    """The method that trains or predicts, and its number of steps, which determine the cost per sample."""
    own = stage.get("inference") or stage.get("sampling") or {}
    return stage.get("row") or (stage.get("train") or {}).get("method"), own.get("num_steps")
