"""Seconds to score predictions, before and after labels were decoded once and vectors were scored by components.

    .venv/bin/python -m benchmarks.evaluation [--images 16] [--size 512] [--write]

Both run in this process on the same stored maps: four rows (constant, mean map, predictions, ceiling) per modality. The
old way decodes each label once per row and scores one image at a time by the formulas below. Seconds are those of the
processor, so that other programs do not count. The last column is the largest difference of any number, relative to its
size where that is above 1. --write puts the table into docs/metrics.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer

from dmp_core.evaluation import metrics
from dmp_core.modalities import BUILT_IN, Modality, find_modality
from dmp_core.scoring.constant import constant_like, map_like
from dmp_core.scoring.protocol import ScoreTable
from dmp_core.stages.evaluate import scored
from dmp_core.store import Artefact, Manifest, Workspace, plan_shards, read_artefact, sample_key, write_shards
from docs.writing.documents import fill

SPLIT = "in_domain"


def some_map(modality: Modality, seed: int, size: int) -> Any:
    """Smooth, as rooms are, with noise on top: (size, size[, 3])."""
    rng = np.random.default_rng(seed)
    channels = modality.channels
    coarse = torch.from_numpy(rng.normal(size=(1, channels, 8, 8))).float()
    fine = F.interpolate(coarse, (size, size), mode="bicubic")[0].movedim(0, -1).numpy()
    fine = fine + rng.normal(size=fine.shape) * 0.05
    if modality.name == "normal":
        fine[..., 2] += 1.5
        return (fine / np.linalg.norm(fine, axis=-1, keepdims=True)).astype(np.float32)
    if modality.has_classes:
        return np.clip(np.round(fine[..., 0] * 8 + 30), 0, 149).astype(np.uint8)
    values = 1 / (1 + np.exp(-fine))
    values = values if channels == 3 else values[..., 0]
    return (values * (8 if modality.name == "depth" else 1)).astype(np.float32)


def stored(modality: Modality, workspace: Workspace, row: str, images: int, seed: int, size: int) -> Artefact:
    """An artefact of maps."""
    out = Artefact(workspace, row, f"{SPLIT}-{modality.name}", "0" * 12, f"{workspace.root}/{row}/{modality.name}")
    keys = [sample_key(SPLIT, index) for index in range(images)]

    def maps(plan: Any) -> Iterator[dict[str, Any]]:
        for key in plan.keys:
            array = some_map(modality, seed + int(key.rpartition("-")[2]), size)
            yield {"__key__": key, modality.member: modality.encode(array)}

    files = write_shards(out, plan_shards(keys, 1000), maps)
    manifest = Manifest(
        stage=row, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={}, files=files,
        samples=images, seconds=0, created="", packages={},
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())
    return out


# ---------------------------------------------------------------------------------------- the old way
def old_normal_scores(pred: torch.Tensor, true: torch.Tensor) -> dict[str, torch.Tensor]:
    def labelled(vectors: torch.Tensor) -> torch.Tensor:
        length = vectors.norm(dim=1)
        return length.isfinite() & (length > 0.5)

    cross = torch.linalg.cross(pred, true, dim=1).norm(dim=1)
    angles = torch.atan2(cross, (pred * true).sum(1)).rad2deg().masked_fill(pred.norm(dim=1) <= 1e-6, 90.0)
    angles = angles.where(angles.isfinite() & pred.isfinite().all(1), 180.0)
    known = labelled(true)
    difference = ((pred + 1) / 2 - (true + 1) / 2).abs().mean(1)
    return {
        "angular_deg": metrics.masked_mean(angles, known),
        "angular_median_deg": angles.where(known, torch.nan).flatten(1).nanquantile(0.5, dim=1),
        "l1": metrics.masked_mean(difference.where(pred.isfinite().all(1), 1.0), labelled(true)),
    }


def old_scores(modality: Modality, pred: Any, true: Any) -> dict[str, Any]:
    if modality.name != "normal":
        return modality.scores_and_areas(pred, true)[0]
    p, t = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(a.astype(np.float64), -1, 1))) for a in (pred, true))
    codes = (p + 1) / 2, (t + 1) / 2
    for _ in range(2):  # the published angle looked twice for pixels with a label, and took this cosine
        F.cosine_similarity(*codes, dim=1).clamp(0, 1).arccos().isfinite()
        (2 * codes[1] - 1).norm(dim=1)
    return {name: values.numpy() for name, values in old_normal_scores(p, t).items()}


def old_way(modality: Modality, rows: dict[str, Any], labels: Artefact) -> dict[str, pd.DataFrame]:
    def decode(sample: dict[str, Any]) -> Any:
        return modality.decode(sample[modality.member])

    tables = {}
    for row, source in rows.items():
        predictions = None if callable(source) else read_artefact(source)
        found = []
        for sample in read_artefact(labels):
            label = decode(sample)
            prediction = source(label) if predictions is None else decode(next(predictions))
            found.append(pd.DataFrame(old_scores(modality, prediction[None], label[None])))
        tables[row] = pd.concat(found, ignore_index=True)
    return tables


def difference(old: dict[str, pd.DataFrame], new: list[ScoreTable]) -> float:
    """The largest difference of any image's number that both have."""
    largest = 0.0
    for table in new:
        before = old[table.row]
        for name in before.columns:
            one, other = before[name].to_numpy(float), table.values[name].to_numpy(float)
            largest = max(largest, float(np.nanmax(np.abs(one - other) / np.maximum(1, np.abs(one)))))
    return largest


def compare(modality: Modality, folder: Path, images: int, size: int) -> tuple[float, float, float]:
    """Seconds per image and row before and after, and the largest difference."""
    workspace = Workspace(str(folder))
    labels = stored(modality, workspace, "labels", images, 0, size)
    everywhere = some_map(modality, 99, size)
    value = modality.constant(iter([everywhere]))
    rows: dict[str, Any] = {
        "constant": lambda label: constant_like(modality, value, label[None])[0],
        "mean map": lambda label: map_like(modality, everywhere, label),
        "DMP": stored(modality, workspace, "predictions", images, 1000, size),
        "VAE ceiling": stored(modality, workspace, "ceilings", images, 2000, size),
    }
    before, old = timed(lambda: old_way(modality, rows, labels))
    after, new = timed(lambda: scored(modality, SPLIT, rows, labels, ()))
    return before / images, after / images, difference(old, new)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def main(images: int = 16, size: int = 512, write: bool = False) -> None:
    lines = ["| modality | before, s an image | after | ratio | largest difference |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        compare(find_modality("shading"), Path(folder) / "warm", 1, 32)
        for name in BUILT_IN:
            before, after, far = compare(find_modality(name), Path(folder) / name, images, size)
            lines.append(f"| {name} | {before:.3f} | {after:.3f} | {before / after:.1f} | {far:.1g} |")
    table = "\n".join(lines) + "\n"
    typer.echo(table)
    if write:
        fill("docs/metrics.md", "evaluation-time", table)


if __name__ == "__main__":
    typer.run(main)
