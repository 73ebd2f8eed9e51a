"""Writes an experiment's folder: results, tables and figures of the artefacts that are complete.

<workspace>/experiments/<name>/
  results.parquet, differences.parquet, experiment.json
  <table>.md, .tex, .html      <plot>.svg, .png      <grid>.png
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dmp_core.experiments import costs, groups, order, tables
from dmp_core.experiments.collect import COLUMNS, DIFFERENCES, collect, differences, with_earlier
from dmp_core.experiments.figures import curve, grid, save_plot
from dmp_core.experiments.planning import PlannedVariant, known_modalities
from dmp_core.experiments.settings import (
    CostSpec,
    CurveSpec,
    Experiment,
    GridSpec,
    GroupSpec,
    OrderSpec,
    ScoreTableSpec,
)
from dmp_core.store import Workspace

INDEX, RESULTS, VERSUS = "experiment.json", "results.parquet", "differences.parquet"


def write_outputs(name: str, experiment: Experiment, planned: Sequence[PlannedVariant], workspace: Workspace) -> str:
    """Write the folder again from the artefacts that are complete; returns its path.

    Scores already in the folder stay after their artefacts were removed, as long as the variants need these.
    planned: all variants of the experiment, run or not; those without scores are listed as `not run`.
    """
    target = f"{workspace.root}/experiments/{name}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scores = with_earlier(collect(name, planned, workspace), _earlier(workspace, target, RESULTS), planned)
        scores.to_parquet(folder / RESULTS, index=False)
        versus = differences(planned, experiment.reference, workspace)
        with_earlier(versus, _earlier(workspace, target, VERSUS), planned).to_parquet(folder / VERSUS, index=False)
        files = {
            output: _write(experiment, output, planned, scores, workspace, folder) for output in experiment.outputs
        }
        (folder / INDEX).write_text(json.dumps(_index(name, experiment, planned, scores, files), indent=1) + "\n")
        for path in sorted(folder.iterdir()):
            workspace.write_bytes(target, path.name, path.read_bytes())
    return workspace.address(target)


def _earlier(workspace: Workspace, folder: str, file: str) -> pd.DataFrame:
    """A table in the folder; empty if there is none."""
    if not workspace.fs.exists(f"{folder}/{file}"):
        return pd.DataFrame(columns=list(COLUMNS if file == RESULTS else DIFFERENCES))
    with workspace.fs.open(f"{folder}/{file}", "rb") as stream:
        return pd.read_parquet(stream)


def _write(
    experiment: Experiment,
    output: str,
    planned: Sequence[PlannedVariant],
    scores: pd.DataFrame,
    workspace: Workspace,
    folder: Path,
) -> list[str]:
    """Write one output; returns the names of its files, none if there is nothing to show."""
    shown = [variant for variant in planned if output in variant.variant.feeds]
    spec = experiment.outputs[output]
    if isinstance(spec, ScoreTableSpec):
        variants = {variant.name: variant.variant for variant in shown}
        table = tables.build(spec.title, spec.layout, scores, variants, known_modalities(shown))
        formats = {"md": tables.markdown, "tex": tables.latex, "html": tables.html}
        for suffix, render in formats.items():
            (folder / f"{output}.{suffix}").write_text(render(table))
        return [f"{output}.{suffix}" for suffix in formats]
    if isinstance(spec, OrderSpec):
        found = order.rankings(spec.tables, scores, {variant.name: variant.variant for variant in shown})
        if found:
            (folder / f"{output}.md").write_text(order.markdown(spec.title, found))
        return [f"{output}.md"] if found else []
    if isinstance(spec, CostSpec):
        (folder / f"{output}.md").write_text(costs.markdown(spec.title, shown, scores))
        return [f"{output}.md"]
    if isinstance(spec, GroupSpec):
        parts = groups.groups(spec, shown, experiment.reference, workspace)
        if parts:
            titles = {variant.name: variant.title for variant in shown}
            (folder / f"{output}.md").write_text(groups.markdown(spec, parts, experiment.reference, titles))
        return [f"{output}.md"] if parts else []
    if isinstance(spec, CurveSpec):
        figure = curve(spec, shown, scores)
        return save_plot(figure, folder, output) if figure else []
    assert isinstance(spec, GridSpec)
    sheet = grid(spec, shown, workspace)
    if sheet is None:
        return []
    sheet.save(folder / f"{output}.png", optimize=True)
    return [f"{output}.png"]


def _index(
    name: str,
    experiment: Experiment,
    planned: Sequence[PlannedVariant],
    scores: pd.DataFrame,
    files: dict[str, list[str]],
) -> dict[str, object]:
    """Index of the folder, for readers without this package."""
    scored = set(scores["variant"])
    return {
        "name": name,
        "title": experiment.title,
        "preset": planned[0].config.preset if planned else experiment.preset,
        "reference": experiment.reference,
        "splits": {
            split: settings.count for split, settings in planned[0].config.splits.items()
        } if planned else {},
        "variants": {
            variant.name: {"title": variant.title, "scored": variant.name in scored} for variant in planned
        },
        "outputs": {
            output: {"title": spec.title, "kind": spec.kind, "files": files[output]}
            for output, spec in experiment.outputs.items()
        },
    }  # fmt: skip
