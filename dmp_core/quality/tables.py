"""Score tables of a split, and the samples that its gates drop."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dmp_core.errors import InputError
from dmp_core.quality.gates import Gates, kept
from dmp_core.store import Artefact

QUALITY_FILE = "quality.parquet"


def read_scores(artefact: Artefact) -> pd.DataFrame:
    """`key` and the scores of every sample, in the order of the split."""
    return pd.read_parquet(io.BytesIO(artefact.read_input(QUALITY_FILE)))


def score_role(split: str, table: str = "") -> str:
    """What stages call a score table of a split among their inputs; without a table, how all of the split begin."""
    return f"quality_{split}_{table}"


def score_tables(inputs: Mapping[str, Artefact], split: str) -> dict[str, pd.DataFrame]:
    """The score tables of one split among a stage's inputs: `image`, or a modality's name → table."""
    prefix = score_role(split)
    return {role.removeprefix(prefix): read_scores(inputs[role]) for role in inputs if role.startswith(prefix)}


def left_out(tables: Mapping[str, pd.DataFrame], gates: Gates, split: str) -> dict[str, str]:
    """Key → gate that it failed, for every sample to be dropped.

    Raises InputError, which names the gates, when none would remain.
    """
    keys, reasons = kept(tables, gates)
    if reasons and not keys:
        counts = ", ".join(f"{gate} {count}" for gate, count in drop_counts(reasons).items())
        raise InputError(
            f"quality: the gates leave none of the {len(reasons)} samples of split {split!r} ({counts}); "
            "loosen them under `quality`, or set them to null"
        )
    return reasons


FAILED = "failed"
"""Counted among the gates: samples that were skipped (`runtime.on_bad_sample`)."""


def skipped(artefacts: Iterable[Artefact]) -> dict[str, str]:
    """Key → reason, for every sample that was skipped in one of these artefacts."""
    return {key: reason for artefact in artefacts for key, reason in artefact.published().skipped.items()}


def failed(artefacts: Iterable[Artefact]) -> dict[str, str]:
    """The same with `failed` as the reason, which is counted among the gates."""
    return dict.fromkeys(sorted(skipped(artefacts)), FAILED)


def drop_counts(reasons: Mapping[str, str]) -> dict[str, int]:
    """Samples per gate, the most frequent first."""
    return {str(gate): int(count) for gate, count in pd.Series(list(reasons.values())).value_counts().items()}


Records = dict[str, dict[str, Any]]
"""Key → table → score, in JSON's types; missing scores are omitted."""


def score_reader(tables: Mapping[str, pd.DataFrame]) -> Callable[[str, str], Records]:
    """Reads the records from one key to another, for a shard at a time: all would take ten times the tables' memory."""
    # A key ends in the sample's number, by which the tables are sorted.
    numbers = {name: table["key"].str[-8:].astype("int64").to_numpy() for name, table in tables.items()}

    def read(first: str, last: str) -> Records:
        records: Records = {}
        for name, table in tables.items():
            start, end = np.searchsorted(numbers[name], (int(first[-8:]), int(last[-8:]) + 1))
            rows = table[start:end]
            for row in json.loads(rows.to_json(orient="records", double_precision=6)):
                key = row.pop("key")
                records.setdefault(key, {})[name] = {score: value for score, value in row.items() if value is not None}
        return records

    return read
