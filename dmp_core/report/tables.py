"""The report's tables and verdicts, from the aggregated metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmp_core.modalities import Metric, Modality, built_in, modality_of
from dmp_core.modalities.classes import ClassMap
from dmp_core.scoring.registry import CEILING, CONSTANT, DMP, MEAN_MAP

DASH = "—"
SPLIT_NAMES = {
    "train": "Training",
    "in_domain": "In-domain",
    "out_of_domain": "Out-of-domain",
    "arbitrary": "Arbitrary",
    "styles": "Styles",
}


def split_name(split: str) -> str:
    return SPLIT_NAMES.get(split, split.replace("_", " ").capitalize())


def format_number(value: float | None, decimals: int, unit: str = "") -> str:
    """A value as text; an em dash if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.{decimals}f}{unit}"


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    text: str
    interval: str = ""
    best: bool = False
    exact: tuple[float | None, ...] = (None, None, None)
    """Mean and bounds of the interval, not rounded: what the table's CSV holds."""


@dataclass(frozen=True)
class Row:
    name: str
    kind: str
    """`method`, `ceiling` or `constant`: the row's style."""
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """Scores of one modality on one split."""

    modality: Modality
    title: str
    images: int
    columns: Sequence[Metric]
    rows: Sequence[Row]
    groups: Sequence[tuple[str, int]] = ()
    """Titles above the columns with the number of columns each spans; the columns' labels then omit them."""

    @property
    def heads(self) -> list[str]:
        """The columns' labels."""
        return [m.label.rsplit(" ", 1)[-1] if self.groups else m.label for m in self.columns]


def score_tables(metrics: Mapping[str, Any], split: str, modalities: Sequence[Modality] | None = None) -> list[Table]:
    """One table per modality that was scored on the split, with its brief metrics; plus one for the paper's classes.

    modalities: in the order to show, the built-in ones by default.
    """
    tables = []
    for modality in built_in() if modalities is None else modalities:
        if rows := metrics.get(modality.name, {}).get(split):
            columns = [m for m in modality.metrics if m.brief]
            tables.append(_table(modality, modality.title, rows, columns))
            if isinstance(modality, ClassMap) and modality.paper_classes:
                tables.append(class_table(modality, rows))
    return tables


def class_table(modality: ClassMap, rows: Mapping[str, Any]) -> Table:
    """Accuracy and IoU of the paper's five classes (Table 2); rows: one split's rows of the modality."""
    names = modality.paper_classes
    columns = [modality.metric(f"{kind}_{name}") for name in names for kind in ("acc", "iou")]
    table = _table(modality, "The paper's five classes (Table 2) ↑", rows, columns, brief=True)
    return replace(table, groups=[(name, 2) for name in names])


def _table(
    modality: Modality, title: str, rows: Mapping[str, Any], columns: Sequence[Metric], *, brief: bool = False
) -> Table:
    ordered = sorted(rows, key=_row_order)
    best = {m.name: _best_row(rows, m) for m in columns}
    shown = [
        Row(name, _row_kind(name), [_cell(rows[name], m, best[m.name] == name, brief) for m in columns])
        for name in ordered
    ]
    return Table(modality, title, max(int(row["images"]) for row in rows.values()), columns, shown)


def _row_kind(name: str) -> str:
    return {CONSTANT: "constant", MEAN_MAP: "constant", CEILING: "ceiling"}.get(name, "method")


def _row_order(name: str) -> tuple[int, str]:
    """DMP, the compared methods, then the references."""
    return {DMP: 0, CEILING: 2, MEAN_MAP: 3, CONSTANT: 4}.get(name, 1), name


def _best_row(rows: Mapping[str, Any], metric: Metric) -> str | None:
    """The row with the best value; the ceiling is a bound, not a competitor."""
    known = {name: mean_of(row, metric.name) for name, row in rows.items() if _row_kind(name) != "ceiling"}
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    if len(known) < 2 or len(set(known.values())) == 1:
        return None
    return (max if metric.higher_is_better else min)(known, key=lambda name: known[name])


def mean_of(row: Mapping[str, Any] | None, name: str) -> float:
    """The mean of one metric; NaN when the row or the value is missing."""
    value = (row or {}).get("metrics", {}).get(name, {}).get("mean")
    return float("nan") if value is None else float(value)


def _cell(row: Mapping[str, Any], metric: Metric, bold: bool = False, brief: bool = False) -> Cell:
    """The value with its interval; `brief`: two decimals and no interval, for tables with many columns."""
    entry = row["metrics"].get(metric.name, {})
    mean, low, high = (entry.get(part) for part in ("mean", "low", "high"))
    decimals = 2 if brief else metric.decimals
    text = format_number(mean, decimals, metric.unit if metric.unit == "°" else "")
    # An interval that prints as one number (the constant's IoU of 0) is of no use.
    wide = low is not None and high is not None and not math.isclose(low, high, abs_tol=10.0**-decimals / 2)
    interval = f"{format_number(low, decimals)}–{format_number(high, decimals)}" if wide and not brief else ""
    exact = tuple(value if value is not None and math.isfinite(value) else None for value in (mean, low, high))
    return Cell(text, interval, bold and mean is not None, exact)


# ------------------------------------------------------------------------------------- headline
@dataclass(frozen=True)
class Standing:
    """DMP's score on one modality and split, relative to the constant predictor and the VAE ceiling."""

    split: str
    value: str
    interval: str
    constant: str
    ceiling: str
    position: float | None
    """0 = no better than the constant, 1 = at the ceiling; None when either is missing."""
    beats_constant: bool | None
    verdict: str


@dataclass(frozen=True)
class Headline:
    """One modality's card at the top of the report."""

    modality: Modality
    title: str
    metric: Metric
    standings: Sequence[Standing]


def headlines(
    metrics: Mapping[str, Any], row: str = DMP, modalities: Sequence[Modality] | None = None
) -> list[Headline]:
    """A card per modality that has a score for `row`; modalities: as for `score_tables`."""
    cards = []
    for modality in built_in() if modalities is None else modalities:
        splits = {split: rows for split, rows in metrics.get(modality.name, {}).items() if row in rows}
        if splits:
            standings = [standing(modality, split, rows, row) for split, rows in splits.items()]
            cards.append(Headline(modality, modality.title, modality.primary_metric, standings))
    return cards


def standing(modality: Modality | str, split: str, rows: Mapping[str, Any], row: str = DMP) -> Standing:
    """Compare one row with the references on the primary metric."""
    primary = modality_of(modality).primary_metric
    ours, constant, ceiling = (mean_of(rows.get(name), primary.name) for name in (row, CONSTANT, CEILING))
    wins = rows[row].get("beats_constant")
    return Standing(
        split=split,
        value=format_number(ours, primary.decimals, primary.unit),
        interval=_cell(rows[row], primary).interval,
        constant=format_number(constant, primary.decimals, primary.unit),
        ceiling=format_number(ceiling, primary.decimals, primary.unit),
        position=_position(ours, constant, ceiling),
        beats_constant=wins,
        verdict=_verdict(rows[row], primary),
    )


def _position(ours: float, constant: float, ceiling: float) -> float | None:
    if not all(map(math.isfinite, (ours, constant, ceiling))) or math.isclose(constant, ceiling):
        return None
    return min(1.0, max(0.0, (ours - constant) / (ceiling - constant)))


def _verdict(row: Mapping[str, Any], metric: Metric) -> str:
    """The comparison with the constant predictor, as text."""
    versus = row.get("versus_constant")
    if not versus:
        return "no constant predictor to compare with"
    if versus.get("difference") is None:
        return "not defined: no label of this split is valid"
    sign = 1.0 if metric.higher_is_better else -1.0
    gain, *bounds = (sign * float(versus[part]) for part in ("difference", "low", "high"))
    side = "better" if gain > 0 else "worse"
    low, high = sorted(bounds if gain > 0 else (-b for b in bounds))
    amounts = [format_number(value, metric.decimals) for value in (abs(gain), low, high)]
    certainty = ": within the noise" if low <= 0 else ""
    return f"{side} than the constant by {amounts[0]}{metric.unit} ({amounts[1]} to {amounts[2]}){certainty}"


def wins(metrics: Mapping[str, Any], split: str, row: str = DMP) -> tuple[int, int]:
    """(number of modalities of a split on which the row beats the constant, modalities compared)."""
    verdicts = [
        splits[split][row].get("beats_constant")
        for splits in metrics.values()
        if split in splits and row in splits[split]
    ]
    compared = [verdict for verdict in verdicts if verdict is not None]
    return sum(compared), len(compared)


def scored_splits(metrics: Mapping[str, Any]) -> list[str]:
    """Splits with scores, in the order of their first appearance."""
    return list(dict.fromkeys(split for splits in metrics.values() for split in splits))
