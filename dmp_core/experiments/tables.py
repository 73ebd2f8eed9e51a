"""Tables in the paper's layout: our numbers with intervals, the paper's below, as Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from dmp_core.experiments.paper import Place, paper_table
from dmp_core.experiments.settings import Variant
from dmp_core.modalities import Metric, Modality, built_in, find_modality
from dmp_core.modalities.segmentation import PAPER_CLASSES
from dmp_core.report.tables import DASH, format_number, split_name
from dmp_core.scoring.registry import CEILING, CONSTANT, MEAN_MAP
from dmp_core.text import markdown as markdown_text

NOT_RUN = "not run"


@dataclass(frozen=True)
class Column:
    """One metric on one split, under two heads."""

    split: str
    metric: Metric
    modality: Modality
    heads: tuple[str, str, str]
    """Split, modality or class, metric; equal adjacent heads are merged."""

    @property
    def place(self) -> Place:
        return self.split, self.modality.name, self.metric.name


@dataclass(frozen=True)
class Line:
    """One row: its name, its kind, and a (value, interval) per column."""

    name: str
    kind: str
    """`ours`, `missing`, `paper` or `reference`."""
    cells: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class PaperTable:
    title: str
    columns: Sequence[Column]
    lines: Sequence[Line]


def layout(name: str, scores: pd.DataFrame, modalities: Sequence[Modality] | None = None) -> list[Column]:
    """The columns of the paper's `table1` to `table4`, or `primary`: every modality and split that was scored.

    modalities: those that `primary` may show, in its order; the built-in ones by default.
    """
    both = ("in_domain", "out_of_domain")
    if name == "table1":
        pairs = [("normal", "l1"), ("normal", "angular_dmp_compat")]
        pairs += [("depth", "abs_rel"), ("depth", "delta1"), ("depth", "rmse_relative")]
        return [_of_paper(split, modality, metric_name) for split in both for modality, metric_name in pairs]
    if name == "table2":
        return [*_class_columns("in_domain")]
    if name == "table3":
        return [_of_paper(split, modality, "mse") for split in both for modality in ("albedo", "shading")]
    if name == "table4":
        return [
            _of_paper(split, "normal", metric_name) for split in both for metric_name in ("l1", "angular_dmp_compat")
        ]
    scored = set(zip(scores["split"], scores["task"], strict=True))
    splits = list(dict.fromkeys(scores["split"]))
    known = built_in() if modalities is None else modalities
    return [
        _column(s, modality, modality.primary_metric)
        for s in splits
        for modality in known
        if (s, modality.name) in scored
    ]


def _of_paper(split: str, name: str, metric: str) -> Column:
    modality = find_modality(name)
    return _column(split, modality, modality.metric(metric))


def _column(split: str, modality: Modality, metric: Metric) -> Column:
    unit = metric.unit.strip() and f" ({metric.unit.strip()})"
    label = f"{metric.label.removesuffix(' (paper)')}{unit} {metric.arrow}"
    return Column(split, metric, modality, (split_name(split), modality.short, label))


def _class_columns(split: str) -> Iterable[Column]:
    modality = find_modality("segmentation")
    for title, suffix in [*((name, f"_{name}") for name in PAPER_CLASSES), ("Mean", "")]:
        for kind, label in (("acc", "Acc ↑"), ("iou", "mIoU ↑")):
            found = modality.metric(f"{kind}{suffix}" if suffix else f"five_{kind}")
            yield Column(split, found, modality, (split_name(split), title, label))


def build(
    title: str,
    layout_name: str,
    scores: pd.DataFrame,
    variants: Mapping[str, Variant],
    modalities: Sequence[Modality] | None = None,
) -> PaperTable:
    """Rows in the paper's order, the paper's number below each; then our other variants; then the references.

    scores: of `collect`. variants: those that the table shows. Methods of the paper without scores are `not run`;
    only the paper's own layouts have the paper's rows. modalities: as for `layout`.
    """
    columns = layout(layout_name, scores, modalities)
    known = {(v, s, t, m): (value, low, high) for v, s, t, m, value, low, high in _tuples(scores)}
    printed = paper_table(layout_name)
    rows = {variant.paper or variant.title: (name, variant) for name, variant in variants.items()}
    lines: list[Line] = []
    for row in [*printed, *(row for row in rows if row not in printed)]:
        name, variant = rows.get(row, (None, None))
        lines.append(_ours(name, variant.title if variant else row, columns, known))
        if row in printed:
            cells = [(printed[row].get(column.place, DASH), "") for column in columns]
            lines.append(Line(f"{row} (paper)", "paper", cells))
    for title_, name in ((CEILING, "ceiling"), (MEAN_MAP, "mean_map"), (CONSTANT, "constant")):
        line = _ours(name, title_, columns, known)
        if line.kind == "ours":
            lines.append(Line(title_, "reference", line.cells))
    return PaperTable(title, columns, lines)


Known = Mapping[tuple[str, str, str, str], tuple[float, float, float]]


def _tuples(scores: pd.DataFrame) -> Iterable[tuple[str, str, str, str, float, float, float]]:
    names = ["variant", "split", "task", "metric", "value", "ci_low", "ci_high"]
    yield from scores[names].itertuples(index=False, name=None)


def _ours(variant: str | None, title: str, columns: Sequence[Column], known: Known) -> Line:
    found = [known.get((variant or "", *column.place)) for column in columns]
    if not any(found):
        return Line(title, "missing", [(NOT_RUN, "")] * len(columns))
    return Line(title, "ours", [_cell(value, c.metric) for value, c in zip(found, columns, strict=True)])


def _cell(value: tuple[float, float, float] | None, metric: Metric) -> tuple[str, str]:
    if value is None:
        return DASH, ""
    mean, low, high = value
    decimals = max(metric.decimals, 1 if metric.unit == "°" else 4)
    bounds = [format_number(bound, decimals) for bound in (low, high)]
    return format_number(mean, decimals), "" if DASH in bounds else "–".join(bounds)


# ------------------------------------------------------------------------------------- formats
def markdown(table: PaperTable) -> str:
    """A table with one line of heads, for GitHub; intervals in small print below the value."""
    heads = [markdown_text(" ".join(dict.fromkeys(column.heads))) for column in table.columns]
    lines = [f"| | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for line in table.lines:
        name, cells = line.name, [f"{v}<br><sub>{i}</sub>" if i else v for v, i in line.cells]
        if line.kind == "paper":
            name, cells = f"*{name}*", [f"*{cell}*" for cell in cells]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return f"**{table.title}**\n\n" + "\n".join(lines) + "\n"


def html(table: PaperTable) -> str:
    """The table as an HTML element: `<table>` with spanning heads."""
    parts = [f"<table><caption>{escape(table.title)}</caption><thead>"]
    for level in range(3):
        cells = "".join(f'<th colspan="{span}">{escape(head)}</th>' for head, span in _spans(table, level))
        parts.append(f"<tr><th></th>{cells}</tr>")
    parts.append("</thead><tbody>")
    for line in table.lines:
        cells = "".join(
            f"<td>{escape(value)}{f'<br><small>{escape(interval)}</small>' if interval else ''}</td>"
            for value, interval in line.cells
        )
        parts.append(f'<tr class="{line.kind}"><th scope="row">{escape(line.name)}</th>{cells}</tr>')
    return "\n".join([*parts, "</tbody></table>"]) + "\n"


def latex(table: PaperTable) -> str:
    """A `table` environment; needs the package booktabs."""
    width = len(table.columns)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
    ]
    for level in range(3):
        spans = list(_spans(table, level))
        cells = (rf"\multicolumn{{{span}}}{{c}}{{{_tex(head)}}}" for head, span in spans)
        lines.append(" & ".join(["", *cells]) + r" \\")
        if level < 2:
            lines.append(_rules([span for _, span in spans]))
    lines.append(r"\midrule")
    for line in table.lines:
        style: Callable[[str], str] = (lambda text: rf"\textit{{{text}}}") if line.kind == "paper" else str
        cells = (style(_tex(v)) + (rf" {{\scriptsize ({_tex(i)})}}" if i else "") for v, i in line.cells)
        lines.append(" & ".join([style(_tex(line.name)), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _spans(table: PaperTable, level: int) -> Iterable[tuple[str, int]]:
    """Heads of one level with the number of columns each spans; a head never spans two heads of the level above."""
    spans: list[tuple[tuple[str, ...], int]] = []
    for column in table.columns:
        head = column.heads[: level + 1]
        if spans and spans[-1][0] == head and level < 2:
            spans[-1] = (head, spans[-1][1] + 1)
        else:
            spans.append((head, 1))
    return ((head[-1], span) for head, span in spans)


def _rules(spans: Sequence[int]) -> str:
    start, rules = 2, []
    for span in spans:
        rules.append(rf"\cmidrule(lr){{{start}-{start + span - 1}}}")
        start += span
    return "".join(rules)


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "δ": r"$\delta$", "°": r"$^\circ$", "–": "--", "—": "---",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
