"""The paper's own numbers, as printed in its Tables 1-4."""

from __future__ import annotations

import csv
from functools import cache

from dmp_core.resources import manifest_path

Place = tuple[str, str, str]
"""(split, modality, metric), with our name of the metric."""


@cache
def paper_table(table: str) -> dict[str, dict[Place, str]]:
    """Row → place → the number as printed, rows in the paper's order. table: `table1` to `table4`."""
    rows: dict[str, dict[Place, str]] = {}
    with manifest_path("paper_tables.csv").open(newline="") as stream:
        for line in csv.DictReader(stream):
            if line["table"] == table:
                rows.setdefault(line["method"], {})[line["split"], line["task"], line["metric"]] = line["value"]
    return rows
