"""The README's figure and table, from the demo's own results.

    make demo
    .venv/bin/python -m docs.writing.readme --workspace runs/demo

Writes docs/images/readme.png and the lines between the `results` markers of README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dmp_core.config import load_config
from dmp_core.modalities import built_in, find_modality
from dmp_core.report import Sample, readme_figure
from dmp_core.scoring.registry import CEILING, CONSTANT, DMP
from dmp_core.stages import plan
from dmp_core.stages.report import read_split
from dmp_core.store import Workspace
from docs.writing.documents import ROOT, fill

SPLITS = ("in_domain", "out_of_domain", "arbitrary")
FURTHER = ("delta1", "five_iou")
"""Metrics of the paper that are shown below the primary one."""


def main(
    workspace: Annotated[str, typer.Option(help="Workspace of `make demo`.")] = "runs/demo",
    preset: Annotated[str, typer.Option(help="Preset of that run.")] = "mini",
    skip: Annotated[int, typer.Option(help="Samples to skip in each split.")] = 0,
) -> None:
    place = Workspace(workspace)
    inputs = {node.id: node.artefact(place) for node in plan(load_config(preset))}
    samples: dict[str, list[Sample]] = {}
    for split in SPLITS:
        keys = [f"{split}-{index:08d}" for index in range(skip, skip + 2)]
        samples[split] = read_split(split, inputs, keys, (), built_in())[1]
    readme_figure(samples, ROOT / "docs" / "images" / "readme.png")
    results = json.loads((Path(workspace) / "report" / "metrics.json").read_text())
    fill("README.md", "results", results_table(results["metrics"], results["training"]))


def results_table(metrics: dict[str, Any], training: dict[str, Any]) -> str:
    """DMP, the best constant and the VAE ceiling, in domain and out of domain: one row per metric."""
    columns = ["in-domain: DMP", "constant", "VAE ceiling", "out-of-domain: DMP", "constant", "VAE ceiling"]
    lines = [f"| modality | metric | {' | '.join(columns)} | adapter |", "|---" * (len(columns) + 3) + "|"]
    for name, splits in metrics.items():
        source = "trained in the demo" if "trained" in training[name]["source"] else "shipped"
        modality = find_modality(name)
        for found in (modality.primary_metric, *(metric for metric in modality.metrics if metric.name in FURTHER)):
            cells = [
                f"{splits[split][row]['metrics'][found.name]['mean']:.{found.decimals}f}"
                for split in SPLITS[:2]
                for row in (DMP, CONSTANT, CEILING)
            ]
            label = f"{found.label}, {found.unit}" if found.unit else found.label
            lines.append(f"| {name} | {label} {found.arrow} | {' | '.join(cells)} | {source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
