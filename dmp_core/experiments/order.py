"""Compares the ranking of methods with the paper's, per column of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from dmp_core.experiments.paper import paper_table
from dmp_core.experiments.settings import Variant
from dmp_core.experiments.tables import Column, layout


@dataclass(frozen=True)
class Ranking:
    """One column of one table: methods that are in both rankings, best first."""

    table: str
    column: Column
    ours: tuple[str, ...]
    paper: tuple[str, ...]

    @property
    def alike(self) -> tuple[int, int]:
        """(pairs of methods that both put in the same order, all pairs)."""
        pairs = list(combinations(self.paper, 2))
        return sum(self.ours.index(one) < self.ours.index(other) for one, other in pairs), len(pairs)


def rankings(names: Sequence[str], scores: pd.DataFrame, variants: Mapping[str, Variant]) -> list[Ranking]:
    """One per column of the paper's tables `names` in which at least two methods have numbers here and in the paper.

    scores: of `collect`. variants: those that are compared. Ties keep the paper's order of rows.
    """
    titles = {name: variant.paper or variant.title for name, variant in variants.items()}
    found = []
    for table in names:
        printed = paper_table(table)
        for column in layout(table, scores):
            paper = {row: float(cells[column.place]) for row, cells in printed.items() if column.place in cells}
            at = scores[(scores[["split", "task", "metric"]] == list(column.place)).all(axis=1)].dropna(
                subset=["value"]
            )
            mine = {
                titles[name]: value for name, value in zip(at["variant"], at["value"], strict=True) if name in titles
            }
            shared = [row for row in paper if row in mine]
            if len(shared) > 1:
                orders = (sorted(shared, key=lambda row: -worth(column, value[row])) for value in (mine, paper))
                found.append(Ranking(table, column, *map(tuple, orders)))
    return found


def worth(column: Column, value: float) -> float:
    """The value with the sign that makes higher better for every metric."""
    return value if column.metric.better(1.0, 0.0) else -value


def markdown(title: str, found: Sequence[Ranking]) -> str:
    """One row per table column, best method first."""
    lines = [f"**{title}**", "", "| table | column | ours, best first | the paper's | pairs in the same order |"]
    lines.append("|---|---|---|---|---:|")
    for ranking in found:
        heads = " ".join(dict.fromkeys(ranking.column.heads))
        same, pairs = ranking.alike
        orders = (" · ".join(order) for order in (ranking.ours, ranking.paper))
        lines.append(f"| {ranking.table[-1]} | {heads} | {' | '.join(orders)} | {same} of {pairs} |")
    return "\n".join(lines) + "\n"
