"""An experiment's figures: grids of images (Figures 3-6 and 8) and plots of error against a setting (Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from dmp_core.config import PipelineConfig
from dmp_core.dataset.reading import column_array
from dmp_core.errors import InputError
from dmp_core.experiments.collect import finished_samples
from dmp_core.experiments.planning import PlannedVariant, known_modalities, shared_node
from dmp_core.experiments.settings import CurveSpec, GridSpec
from dmp_core.modalities import Modality, modality_of
from dmp_core.modalities.pictures import load_matplotlib
from dmp_core.report.pictures import SheetRow, contact_sheet
from dmp_core.report.tables import split_name
from dmp_core.scoring.registry import CEILING, CONSTANT
from dmp_core.stages import Node
from dmp_core.store import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

Arrays = list[NDArray[Any]]

_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "dmp", "font.size": 9}
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_COLOURS = ("#2458a6", "#c4541a", "#3a7d44", "#7a4f9e")


# --------------------------------------------------------------------------------------- grids
def grid(spec: GridSpec, shown: Sequence[PlannedVariant], workspace: Workspace) -> Image.Image | None:
    """The image, then for each modality its label and each variant's prediction; None without any prediction.

    Missing artefacts leave cells empty.
    """
    groups = [(split, _columns(spec, split, shown, workspace)) for split in spec.splits]
    groups = [(split, columns) for split, columns in groups if columns]
    modalities = [
        m for m in _shown(spec, shown) if any((m.name, v.name) in columns for _, columns in groups for v in shown)
    ]
    if not modalities:
        return None
    rows = [SheetRow([image for _, columns in groups for image in columns["", ""]], "Image")]
    for modality in modalities:
        spans = [modality.span(columns.get((modality.name, ""), [])) for _, columns in groups]
        for name, title in [("", "label"), *((variant.name, variant.title) for variant in shown)]:
            cells: list[Any] = []
            for (_, columns), span in zip(groups, spans, strict=True):
                found = columns.get((modality.name, name), [])
                cells += [modality.colourise(array, span=span) for array in found] or [None] * len(columns["", ""])
            if any(cell is not None for cell in cells):
                label = _truth(shown[0].config, modality) if not name else title
                rows.append(SheetRow(cells, label, gap_above=not name))
    return contact_sheet(rows, groups=[(split_name(split), len(columns["", ""])) for split, columns in groups])


_LABELERS = {"omnidata": "Omnidata", "zoedepth": "ZoeDepth", "eva02": "EVA-02", "pienet": "PIE-Net"}


def _shown(spec: GridSpec, variants: Sequence[PlannedVariant]) -> list[Modality]:
    known = {modality.name: modality for modality in known_modalities(variants)}
    return [known[name] for name in spec.modalities if name in known]


def _truth(config: PipelineConfig, modality: Modality | str) -> str:
    """Name of the row of labels: the predictor that made them, if there is one."""
    modality = modality_of(modality)
    labeler = config.labeler(modality.name)
    kind = labeler.kind if labeler else "exact"
    return modality.short if kind == "exact" else f"{modality.short} ({_LABELERS.get(kind, kind)})"


def _columns(
    spec: GridSpec, split: str, shown: Sequence[PlannedVariant], workspace: Workspace
) -> dict[tuple[str, str], Arrays]:
    """(modality, variant) → arrays of the split's first samples; ("", ""): the images, (modality, ""): the labels."""
    if not shown or split not in shown[0].config.splits:
        return {}
    images = _first(shared_node(shown, f"images/{split}"), None, spec.per_split, workspace)
    if not images:
        return {}
    found = {("", ""): images}
    for modality in _shown(spec, shown):
        name = modality.name
        labels = _first(shared_node(shown, f"labels/{split}-{name}"), modality, spec.per_split, workspace)
        predictions = {v.name: _first(v.prediction(split, name), modality, spec.per_split, workspace) for v in shown}
        found |= {(name, row): arrays for row, arrays in {"": labels, **predictions}.items() if arrays}
    return found


def _first(node: Node | None, modality: Modality | None, count: int, workspace: Workspace) -> Arrays:
    """The first labels of a modality, or images for None."""
    return [column_array(modality, sample) for sample in islice(finished_samples(node, workspace), count)]


# ---------------------------------------------------------------------------------------- plots
def curve(spec: CurveSpec, shown: Sequence[PlannedVariant], scores: pd.DataFrame) -> Figure | None:
    """Primary metric against one setting; None without scores.

    A panel per modality, a colour per split, a marker per series. Bars are the 95 % intervals; dotted lines the
    constant predictor and the VAE ceiling.
    """
    points = _points(spec, shown, scores)
    if points.empty:
        return None
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    known = {modality.name: modality for modality in known_modalities(shown)}
    modalities = [known[name] for name in dict.fromkeys(points["task"])]
    with matplotlib.rc_context(_STYLE):
        # The legend is next to the panels: with several series it is as long as they are high.
        beside = 3.2 if points["series"].nunique() > 1 else 1.4
        figure = Figure(figsize=(4.2 * len(modalities) + beside, 3.4), layout="constrained")
        for number, modality in enumerate(modalities):
            axes = figure.add_subplot(1, len(modalities), number + 1)
            _panel(axes, spec, modality, points[points["task"] == modality.name], scores)
        entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
        handles = {label: handle for panel in entries for handle, label in panel}
        figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _panel(axes: Any, spec: CurveSpec, modality: Modality, points: pd.DataFrame, scores: pd.DataFrame) -> None:
    metric = modality.primary_metric
    series = list(dict.fromkeys(points["series"]))
    for colour, (split, of_split) in zip(_COLOURS, points.groupby("split", sort=False), strict=False):
        for (style, marker), (name, line) in zip(_LINES, of_split.groupby("series", sort=False), strict=False):
            line = line.drop_duplicates("x").sort_values("x")
            bars = [line["value"] - line["ci_low"], line["ci_high"] - line["value"]]
            label = split_name(str(split)) + (f", {name}" if len(series) > 1 else "")
            axes.errorbar(
                line["x"], line["value"], bars, label=label, color=colour, linestyle=style, marker=marker, ms=3.5
            )
        of_modality = scores[scores["task"] == modality.name]
        at_place = of_modality[(of_modality["split"] == split) & (of_modality["metric"] == metric.name)]
        for level in at_place.loc[at_place["method"].isin((CONSTANT, CEILING)), "value"].dropna():
            axes.axhline(level, color=colour, linewidth=0.8, linestyle=(0, (1, 3)))
    ticks = sorted(set(points["x"]))
    if ticks[0] > 0:
        axes.set_xscale("log")
    elif len(ticks) > 1:  # linear from 0 to the first step
        axes.set_xscale("symlog", linthresh=ticks[1], linscale=0.3)
        axes.set_xlim(-0.2 * ticks[1], 1.3 * ticks[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(spec.label)
    axes.set_ylabel(
        f"{metric.label}{f' ({metric.unit.strip()})' if metric.unit else ''} {metric.arrow}", parse_math=False
    )
    axes.set_title(modality.title, fontsize=9, parse_math=False)


def _points(spec: CurveSpec, shown: Sequence[PlannedVariant], scores: pd.DataFrame) -> pd.DataFrame:
    """Columns x, series, task, split, value, ci_low, ci_high: the primary metrics of the variants shown."""
    at = {variant.name: _place(variant, spec.x) for variant in shown}
    series = {variant.name: variant.variant.series for variant in shown}
    chosen = scores[scores["variant"].isin(list(at))]
    names = chosen["task"].map({m.name: m.primary_metric.name for m in known_modalities(shown)})
    chosen = chosen[names == chosen["metric"]].dropna(subset=["value"])
    return chosen.assign(x=chosen["variant"].map(at), series=chosen["variant"].map(series))


def _place(shown: PlannedVariant, path: str) -> float:
    """The value of a numeric setting; without `train.samples`, the size of the whole training split."""
    config = shown.config
    value: Any = shown.variant if path == "at" else config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    if path == "train.samples" and value is None:
        value = config.splits["train"].count
    if not isinstance(value, int | float):
        raise InputError(f"{path}: {value!r} is not a number to plot against; name another setting in the experiment")
    return float(value)


def save_plot(figure: Figure, folder: Path, name: str) -> list[str]:
    """Write SVG and PNG; returns the files' names. The same figure gives the same bytes."""
    with load_matplotlib().rc_context(_STYLE):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
    return [f"{name}.svg", f"{name}.png"]
