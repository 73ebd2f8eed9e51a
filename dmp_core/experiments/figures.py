"""An experiment's figures: grids of pictures (Figures 3-6 and 8) and plots of error against a setting (Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from dmp_core.config import PipelineConfig
from dmp_core.config.stages import Task
from dmp_core.errors import InputError
from dmp_core.evaluation.registry import CEILING, CONSTANT, primary_metric
from dmp_core.experiments.collect import finished_samples
from dmp_core.experiments.planning import PlannedVariant, shared_node
from dmp_core.experiments.settings import CurveSpec, GridSpec
from dmp_core.report.extra import load_matplotlib
from dmp_core.report.pictures import SheetRow, colourise, contact_sheet, depth_range
from dmp_core.report.tables import SHORT_NAMES, TASK_NAMES, split_name
from dmp_core.stages import Node
from dmp_core.stages.latents import column_array
from dmp_core.store import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

Arrays = list[NDArray[Any]]

_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "dmp", "font.size": 9}
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_COLOURS = ("#2458a6", "#c4541a", "#3a7d44", "#7a4f9e")


# ------------------------------------------------------------------------------------- pictures
def grid(spec: GridSpec, shown: Sequence[PlannedVariant], workspace: Workspace) -> Image.Image | None:
    """The image, then for each task its label and what each variant predicts; None while nothing is predicted.

    What is not made yet stays empty.
    """
    groups = [(split, _columns(spec, split, shown, workspace)) for split in spec.splits]
    groups = [(split, columns) for split, columns in groups if columns]
    tasks = [task for task in spec.tasks if any((task, v.name) in columns for _, columns in groups for v in shown)]
    if not tasks:
        return None
    rows = [SheetRow([image for _, columns in groups for image in columns["", ""]], "Image")]
    for task in tasks:
        metres = [depth_range(columns.get((task, ""), [])) for _, columns in groups]
        for name, title in [("", "label"), *((variant.name, variant.title) for variant in shown)]:
            cells: list[Any] = []
            for (_, columns), span in zip(groups, metres, strict=True):
                found = columns.get((task, name), [])
                cells += [colourise(task, array, metres=span) for array in found] or [None] * len(columns["", ""])
            if any(cell is not None for cell in cells):
                label = _truth(shown[0].config, task) if not name else title
                rows.append(SheetRow(cells, label, gap_above=not name))
    return contact_sheet(rows, groups=[(split_name(split), len(columns["", ""])) for split, columns in groups])


_LABELERS = {"omnidata": "Omnidata", "zoedepth": "ZoeDepth", "eva02": "EVA-02", "pienet": "PIE-Net"}


def _truth(config: PipelineConfig, task: Task) -> str:
    """What the row of labels is called: the predictor that made them, where one did."""
    kind = config.labels[task].kind
    return SHORT_NAMES[task] if kind == "exact" else f"{SHORT_NAMES[task]} ({_LABELERS.get(kind, kind)})"


def _columns(
    spec: GridSpec, split: str, shown: Sequence[PlannedVariant], workspace: Workspace
) -> dict[tuple[str, str], Arrays]:
    """(task, variant) → arrays of the split's first samples; ("", "") are the images, (task, "") the labels."""
    if not shown or split not in shown[0].config.splits:
        return {}
    images = _first(shared_node(shown, f"images/{split}"), "image", spec.per_split, workspace)
    if not images:
        return {}
    found = {("", ""): images}
    for task in spec.tasks:
        labels = _first(shared_node(shown, f"labels/{split}-{task}"), task, spec.per_split, workspace)
        predictions = {v.name: _first(v.prediction(split, task), task, spec.per_split, workspace) for v in shown}
        found |= {(task, name): arrays for name, arrays in {"": labels, **predictions}.items() if arrays}
    return found


def _first(node: Node | None, column: str, count: int, workspace: Workspace) -> Arrays:
    return [column_array(column, sample) for sample in islice(finished_samples(node, workspace), count)]


# ---------------------------------------------------------------------------------------- plots
def curve(spec: CurveSpec, shown: Sequence[PlannedVariant], scores: pd.DataFrame) -> Figure | None:
    """Primary metric against one setting: a panel a task, a colour a split, a marker a series; None without scores.

    Bars are the 95 % intervals; dotted lines the constant predictor and the VAE ceiling.
    """
    points = _points(spec, shown, scores)
    if points.empty:
        return None
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(points["task"]))
    with matplotlib.rc_context(_STYLE):
        # The legend stands beside the panels: with several series it is as long as they are high.
        beside = 3.2 if points["series"].nunique() > 1 else 1.4
        figure = Figure(figsize=(4.2 * len(tasks) + beside, 3.4), layout="constrained")
        for number, task in enumerate(tasks):
            axes = figure.add_subplot(1, len(tasks), number + 1)
            _panel(axes, spec, task, points[points["task"] == task], scores)
        told = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
        handles = {label: handle for panel in told for handle, label in panel}
        figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _panel(axes: Any, spec: CurveSpec, task: Task, points: pd.DataFrame, scores: pd.DataFrame) -> None:
    metric = primary_metric(task)
    series = list(dict.fromkeys(points["series"]))
    for colour, (split, of_split) in zip(_COLOURS, points.groupby("split", sort=False), strict=False):
        for (style, marker), (name, line) in zip(_LINES, of_split.groupby("series", sort=False), strict=False):
            line = line.drop_duplicates("x").sort_values("x")
            bars = [line["value"] - line["ci_low"], line["ci_high"] - line["value"]]
            label = split_name(str(split)) + (f", {name}" if len(series) > 1 else "")
            axes.errorbar(
                line["x"], line["value"], bars, label=label, color=colour, linestyle=style, marker=marker, ms=3.5
            )
        at_place = scores[(scores["task"] == task) & (scores["split"] == split) & (scores["metric"] == metric.name)]
        for level in at_place.loc[at_place["method"].isin((CONSTANT, CEILING)), "value"].dropna():
            axes.axhline(level, color=colour, linewidth=0.8, linestyle=(0, (1, 3)))
    ticks = sorted(set(points["x"]))
    if ticks[0] > 0:
        axes.set_xscale("log")
    elif len(ticks) > 1:  # linear from nothing to the first step
        axes.set_xscale("symlog", linthresh=ticks[1], linscale=0.3)
        axes.set_xlim(-0.2 * ticks[1], 1.3 * ticks[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(spec.label)
    axes.set_ylabel(f"{metric.label}{f' ({metric.unit.strip()})' if metric.unit else ''} {metric.arrow}")
    axes.set_title(TASK_NAMES[task], fontsize=9)


def _points(spec: CurveSpec, shown: Sequence[PlannedVariant], scores: pd.DataFrame) -> pd.DataFrame:
    """Columns x, series, task, split, value, ci_low, ci_high: the primary metrics of the variants shown."""
    at = {variant.name: _place(variant, spec.x) for variant in shown}
    series = {variant.name: variant.variant.series for variant in shown}
    chosen = scores[scores["variant"].isin(list(at))]
    names = chosen["task"].map(lambda task: primary_metric(task).name)
    chosen = chosen[names == chosen["metric"]].dropna(subset=["value"])
    return chosen.assign(x=chosen["variant"].map(at), series=chosen["variant"].map(series))


def _place(shown: PlannedVariant, path: str) -> float:
    """The number that a setting has; `train.samples` left open means the whole training split."""
    config = shown.config
    value: Any = shown.variant if path == "at" else config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    if path == "train.samples" and value is None:
        value = config.splits["train"].count
    if not isinstance(value, int | float):
        raise InputError(f"{path}: {value!r} is no number to plot against; name another setting in the experiment")
    return float(value)


def save_plot(figure: Figure, folder: Path, name: str) -> list[str]:
    """Write SVG and PNG; returns the files' names. The same figure gives the same bytes."""
    with load_matplotlib().rc_context(_STYLE):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
    return [f"{name}.svg", f"{name}.png"]
