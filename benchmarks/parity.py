"""Deviation of this code from the published one: the largest per golden vector.

    .venv/bin/python -m benchmarks.parity [--every] [--write]

Runs tests/golden and prints the measured deviations: one row per group of vectors, or with --every one per vector.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from typing import Annotated

import pytest
import typer

from docs.writing.documents import ROOT, fill

UNITS = {0.0: "exact", 1.0: "1 level of 255"}


def parity_table(measured: dict[str, tuple[float, float]], every: bool) -> str:
    """Markdown; one row per vector, or per group of vectors: those of one area with the same tolerance."""
    groups: dict[tuple[str, float], list[float]] = defaultdict(list)
    for name, (deviation, tolerance) in measured.items():
        groups[name if every else _group(name), tolerance].append(deviation)
    lines = ["| item | vectors | max deviation | tolerance |", "|---|---|---|---|"]
    for (item, tolerance), deviations in groups.items():
        allowed = UNITS.get(tolerance, f"{tolerance:g}")
        lines.append(f"| {item} | {len(deviations)} | {max(deviations):.2g} | {allowed} |")
    return "\n".join(lines) + "\n"


def _group(name: str) -> str:
    """`train.v_prediction.loss` belongs to `train`, `palette2_lab8` to `palette`, `3dcc.384` to `3dcc`."""
    found = re.match(r"\d?[a-z]+(2c)?", name)
    return found[0] if found else name


def main(
    every: Annotated[bool, typer.Option(help="One row per vector instead of one per group.")] = False,
    write: Annotated[bool, typer.Option(help="Also put the table into docs/parity.md.")] = False,
) -> None:
    sys.path.insert(0, str(ROOT))  # the tests are a package next to this one
    from tests.golden.vectors import MEASURED

    status = pytest.main(["-q", "--no-header", str(ROOT / "tests" / "golden")])
    table = parity_table(MEASURED, every)
    sys.stdout.write(table)
    if write:
        fill("docs/parity.md", "parity", table)
    raise typer.Exit(int(status))


if __name__ == "__main__":
    typer.run(main)
