"""Bounds on scores: the samples that pass, and the reasons of those that are dropped."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING

from dmp_core.modalities import Modality, modality_of
from dmp_core.quality.settings import QualityConfig

if TYPE_CHECKING:
    import pandas as pd

IMAGE = "image"
"""The table with scores of image and prompt; the others are named after a modality and score its label."""

Bound = float | list[str]
"""Of a score; of the gate `rejects`, the keys that it drops."""
Gates = dict[str, dict[str, Bound]]
"""Table → gate → bound, only gates that are set."""

REJECTS = "rejects"
"""The gate that people write; it reads no score."""

IMAGE_GATES = (
    "drop_flagged",
    "min_std",
    "max_clipped",
    "min_sharpness",
    "min_hash_distance",
    "min_test_distance",
    "max_prompt_similarity",
    "min_clip_score",
)


def gates_for(
    quality: QualityConfig, modalities: Iterable[Modality | str], splits: Container[str] | None = None
) -> Gates:
    """The gates that are set, for the images and these modalities' labels.

    splits: those that are read, so that a stage does not depend on rejected samples of others; None: all.
    """
    # 0 is a valid bound.
    bounds = {name: value for name, value in quality.model_dump().items() if value is not None and value is not False}
    rejects = [key for key in bounds.pop(REJECTS, ()) if splits is None or key.rpartition("-")[0] in splits]
    bounds |= {REJECTS: rejects} if rejects else {}
    known = {IMAGE: (*IMAGE_GATES, REJECTS)} | {
        one.name: (*one.gates, one.flip_gate) for one in map(modality_of, modalities)
    }
    tables = {table: {gate: bounds[gate] for gate in gates if gate in bounds} for table, gates in known.items()}
    return {table: gates for table, gates in tables.items() if gates}


def kept(tables: Mapping[str, pd.DataFrame], gates: Gates) -> tuple[list[str], dict[str, str]]:
    """The keys that pass all gates, in order, and for each other key the first gate that it failed.

    tables: by the names in `gates`, one row per sample, the same samples in each: `key` and the scores. Gates of a
    missing table are not applied, and a missing score fails no gate. `min_X` requires a score X of at least the bound,
    `max_X` one of at most the bound, `drop_X` one that is not true. In reasons, the gates of labels are named
    `<modality>.<gate>`.
    """
    reasons: dict[str, str] = {}
    for name, (table, gate, bound) in _named(gates).items():
        for key in failing(tables[table], gate, bound) if table in tables else ():
            reasons.setdefault(key, name)
    first = next(iter(tables.values()), None)
    return [] if first is None else [key for key in first["key"] if key not in reasons], reasons


def bounds_by_name(gates: Gates) -> dict[str, float]:
    """Gate, by its name in reasons → bound of its score."""
    return {name: bound for name, (_, _, bound) in _named(gates).items() if not isinstance(bound, list)}


def explain(tables: Mapping[str, pd.DataFrame], gates: Gates, key: str, name: str) -> str:
    """Why the gate with this name in reasons dropped the sample: its score and the bound."""
    table, gate, bound = _named(gates)[name]
    if isinstance(bound, list):
        return "rejected by hand"
    kind, _, score = gate.partition("_")
    value = tables[table].set_index("key")[score][key]
    return score if kind == "drop" else f"{score} {value:.4g}, {kind} {bound:g}"


def _named(gates: Gates) -> dict[str, tuple[str, str, Bound]]:
    return {
        gate if table == IMAGE else f"{table}.{gate}": (table, gate, bound)
        for table, bounds in gates.items()
        for gate, bound in bounds.items()
    }


def failing(table: pd.DataFrame, gate: str, bound: Bound) -> list[str]:
    if isinstance(bound, list):
        return list(table["key"][table["key"].isin(bound)])
    kind, _, score = gate.partition("_")
    if score not in table:
        return []
    values = table[score].astype("Float64")
    fails = {"min": values < bound, "max": values > bound, "drop": values > 0}[kind]
    return list(table["key"][fails.fillna(False)])
