"""How long and how large a node will be: from its like in the same workspace, else from typical rates."""

from __future__ import annotations

from typing import Any

from dmp_core.stages.node import Node, PredictStage
from dmp_core.store import Workspace, sidecars
from dmp_core.store.folders import files_below
from dmp_core.store.workspace import FOLDERS, known_manifests

TYPICAL = {
    "prompts": (0.45, 200),
    "images": (0.3, 60_000),
    "labels": (0.01, 10_000),
    "quality": (0.002, 100),
    "shards": (0.01, 40_000),
    "latents": (0.02, 10_000),
    "editor": (0.4, 10_000),
    "train": (0.04, 300),
    "predict": (0.02, 10_000),
    "evaluate": (0.05, 500),
    "report": (0.1, 10_000),
}
"""Seconds and bytes a sample on two CPU cores with the mini preset (`benchmarks/`); first guess only."""

ON_A_GPU = {
    "prompts": (0.05, 200),
    "images": (2.0, 450_000),
    "labels": (0.1, 250_000),
    "quality": (0.02, 100),
    "shards": (0.03, 1_700_000),
    "latents": (0.05, 33_000),
    "editor": (0.5, 500_000),
    "train": (0.06, 10),
    "predict": (0.15, 250_000),
    "evaluate": (0.1, 500),
    "report": (0.2, 10_000),
}
"""The same for the paper preset (512 x 512 pixels) on one GPU of the A100 class. Guesses, none measured here: Stable
Diffusion v1 with 50 guided steps in half precision takes 1.5 to 2.5 s an image there by public figures, a LoRA step
of batch 8 about half a second; the rest follows from these by counting passes. A run in the workspace replaces them.
"""

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
    seconds, size = (ON_A_GPU if big else TYPICAL)[node.stage]
    return seconds + _passes(node) * (A_PASS_ON_A_GPU if big else A_PASS), size


def _passes(node: Node) -> int:
    """Of the U-Net for one image that is predicted."""
    if not isinstance(node.config, PredictStage) or node.config.row == "ceiling":
        return 0
    own = node.config.sampling if node.config.row == "dmp" else node.config.inference
    return getattr(own, "passes", 1)


def _measured(node: Node, workspace: Workspace) -> tuple[float, float] | None:
    """Rates of the newest finished artefact of the same stage, and of the same method, in this workspace."""
    folder = f"{workspace.root}/{FOLDERS[node.stage]}"
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
