"""Bounds on scores: which samples they leave, and why the others go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dmp_core.config.stages import QualityConfig, Task

if TYPE_CHECKING:
    import pandas as pd

IMAGE = "image"
"""The table that scores image and prompt; the others have a task's name and score its label."""

Gates = dict[str, dict[str, float]]
"""Table → gate → bound, set gates only."""

_INTRINSIC = ("min_label_std", "max_label_clipped", "max_flip_mse")
_GATES: dict[str, tuple[str, ...]] = {
    IMAGE: (
        "drop_flagged",
        "min_std",
        "max_clipped",
        "min_sharpness",
        "min_hash_distance",
        "min_test_distance",
        "max_prompt_similarity",
        "min_clip_score",
    ),
    "normal": ("min_labelled", "min_unit", "min_normal_z", "max_flip_degrees"),
    "depth": ("min_labelled", "max_far", "max_flip_abs_rel"),
    "segmentation": ("min_labelled", "min_classes", "max_class_share", "min_flip_agreement"),
    "albedo": _INTRINSIC,
    "shading": _INTRINSIC,
}


def gates_for(quality: QualityConfig, tasks: Iterable[Task]) -> Gates:
    """The gates that are set, of the images and of these tasks' labels."""
    # 0 is a bound.
    bounds = {name: value for name, value in quality.model_dump().items() if value is not None and value is not False}
    tables = {table: {gate: bounds[gate] for gate in _GATES[table] if gate in bounds} for table in (IMAGE, *tasks)}
    return {table: gates for table, gates in tables.items() if gates}


def kept(tables: Mapping[str, pd.DataFrame], gates: Gates) -> tuple[list[str], dict[str, str]]:
    """The keys that pass all gates, in order, and for each other key the first gate that it failed.

    tables: by the names in `gates`, one row a sample, the same samples in each: `key` and the scores. Gates of a table
    that is not there are not applied, and a score that is missing fails no gate. `min_X` asks for a score X of at least
    the bound, `max_X` for one of at most the bound, `drop_X` for one that is not true. Reasons name the gates of labels
    `<task>.<gate>`.
    """
    reasons: dict[str, str] = {}
    for name, (table, gate, bound) in _named(gates).items():
        for key in failing(tables[table], gate, bound) if table in tables else ():
            reasons.setdefault(key, name)
    first = next(iter(tables.values()), None)
    return [] if first is None else [key for key in first["key"] if key not in reasons], reasons


def bounds_by_name(gates: Gates) -> dict[str, float]:
    """Gate, as reasons name it → bound."""
    return {name: bound for name, (_, _, bound) in _named(gates).items()}


def _named(gates: Gates) -> dict[str, tuple[str, str, float]]:
    return {
        gate if table == IMAGE else f"{table}.{gate}": (table, gate, bound)
        for table, bounds in gates.items()
        for gate, bound in bounds.items()
    }


def failing(table: pd.DataFrame, gate: str, bound: float) -> list[str]:
    kind, _, score = gate.partition("_")
    if score not in table:
        return []
    values = table[score].astype("Float64")
    fails = {"min": values < bound, "max": values > bound, "drop": values > 0}[kind]
    return list(table["key"][fails.fillna(False)])
