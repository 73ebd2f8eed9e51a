"""Section 4's protocol: score predictions per image, compare them with a constant, aggregate with intervals.

Arrays come in the dataset's own units, channels last or first: vectors and colours (N, H, W, 3), scalar maps and
class ids (N, H, W); see `Modality.channels_last` and, for pixels without a label, `Modality.valid`.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.evaluation.bootstrap import (
    Interval,
    Resamples,
    Statistic,
    difference,
    percentile_intervals,
    weighted_mean,
)
from dmp_core.modalities import Metric, Modality, modality_of
from dmp_core.scoring.constant import constant_like, constant_prediction, map_like, mean_map
from dmp_core.scoring.registry import CONSTANT, DMP

__all__ = [
    "ScoreTable",
    "Scorer",
    "aggregate",
    "constant_like",
    "constant_prediction",
    "finite_or_none",
    "map_like",
    "mean_map",
    "pick_cases",
    "score",
]

CHUNK = 64
"""Images scored at a time; bounds the memory of the intermediate float arrays."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one predictor on one split: returned by `score`, read by `aggregate`."""

    modality: Modality
    values: pd.DataFrame
    """One row per image: `key`, then the modality's per-image metrics; NaN where undefined."""
    row: str = DMP
    """Name of the predictor: DMP, VAE ceiling, constant, or a compared method."""
    split: str = ""
    areas: NDArray[np.int64] | None = field(default=None, repr=False)
    """Of class maps, (N, K, 3): pixels right, pixels predicted, pixels labelled, per image and class."""

    @property
    def dataset(self) -> dict[str, float]:
        """The value of every metric over the whole set (without intervals)."""
        whole = np.ones((1, len(self.values)))
        return {m.name: float(self.statistic(m)(whole)[0]) for m in self.modality.metrics}

    def statistic(self, metric: Metric) -> Statistic:
        """The metric as a function of resample weights."""
        if metric.level == "image":
            return weighted_mean(self.values[metric.name].to_numpy(dtype=np.float64))
        if self.areas is None:
            raise InputError(f"{metric.name}: this table contains no class areas; score the predictions again")
        return self.modality.area_statistic(self.areas, metric.name)

    def only(self, keys: Collection[str]) -> ScoreTable:
        """The rows of these images, in the table's order."""
        chosen = self.values["key"].isin(keys).to_numpy()
        areas = None if self.areas is None else self.areas[chosen]
        return replace(self, values=self.values[chosen].reset_index(drop=True), areas=areas)

    def save(self, path: str | Path) -> None:
        """Write one parquet file; class areas are included as sparse list columns."""
        frame = self.values.copy()
        if self.areas is not None:
            shown = [np.flatnonzero(image.any(axis=1)) for image in self.areas]
            frame["classes"] = [ids.tolist() for ids in shown]
            frame["areas"] = [image[ids].ravel().tolist() for image, ids in zip(self.areas, shown, strict=True)]
            frame["num_classes"] = self.areas.shape[1]
        frame.attrs = {"task": self.modality.name, "row": self.row, "split": self.split}
        frame.to_parquet(path, index=False)

    @classmethod
    def load(cls, path: str | Path, modality: Modality | None = None) -> ScoreTable:
        """Read a file of `save`; raises InputError for any other file.

        modality: the table's modality, looked up by name if None; needed for those of `own_modalities`.
        """
        try:
            frame = pd.read_parquet(path)
            name, row, split = (frame.attrs[field] for field in ("task", "row", "split"))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not a table of scores ({error}); run the evaluate stage again") from None
        modality = modality or modality_of(name)
        if modality.name != name:
            raise InputError(f"{path}: scores of {name}, not of {modality.name}")
        areas = None
        if "areas" in frame:
            areas = np.zeros((len(frame), int(frame["num_classes"].iloc[0]), 3), dtype=np.int64)
            for image, (ids, flat) in enumerate(zip(frame["classes"], frame["areas"], strict=True)):
                # An image without a labelled pixel has empty lists, and where all are empty the file has no type.
                areas[image, np.asarray(ids, dtype=np.int64)] = np.reshape(np.asarray(flat, dtype=np.int64), (-1, 3))
            frame = frame.drop(columns=["classes", "areas", "num_classes"])
        frame.attrs = {}
        return cls(modality, frame, row, split, areas)


class Scorer:
    """Collects scores batch by batch, so that a split need not fit into memory."""

    def __init__(self, modality: Modality | str, *, row: str = DMP, split: str = "") -> None:
        self.modality, self.row, self.split = modality_of(modality), row, split
        # Growing arrays: small ones that stay would lie between the freed ones of each chunk, which then never shrink.
        self._keys: list[str] = []
        self._columns: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._areas: list[NDArray[np.int64]] = []

    def update(self, pred: NDArray[Any], true: NDArray[Any], keys: Sequence[str]) -> None:
        """Score predictions (N, ...) against labels of the same shape; keys: N sample keys."""
        pred, true = np.asarray(pred), np.asarray(true)
        if pred.shape != true.shape or len(pred) != len(keys):
            raise InputError(
                f"{self.modality.name}: prediction {pred.shape}, label {true.shape} and {len(keys)} keys do not match"
            )
        for start in range(0, len(keys), CHUNK):
            part = slice(start, start + CHUNK)
            self._score_chunk(pred[part], true[part], list(keys[part]))

    def _score_chunk(self, pred: NDArray[Any], true: NDArray[Any], keys: list[str]) -> None:
        columns, areas = self.modality.scores_and_areas(pred, true)
        if areas is not None:
            self._areas.append(areas)
        self._keys += keys
        for name, values in columns.items():
            self._columns[name].extend(values.tolist())

    def table(self) -> ScoreTable:
        """All scores so far; raises InputError when there are none."""
        if not self._keys:
            raise InputError(f"{self.modality.name}: no images to score in split {self.split!r}")
        values = pd.DataFrame({"key": self._keys} | {name: np.array(own) for name, own in self._columns.items()})
        areas = np.concatenate(self._areas) if self._areas else None
        return ScoreTable(self.modality, values, self.row, self.split, areas)


def score(
    modality: Modality | str,
    pred: NDArray[Any],
    true: NDArray[Any],
    keys: Sequence[str],
    *,
    row: str = DMP,
    split: str = "",
) -> ScoreTable:
    """Score predictions (N, ...) against labels (N, ...); shapes and units as in the module's docstring.

    Raises InputError when shapes or the number of keys disagree, or the modality is unknown.
    """
    scorer = Scorer(modality, row=row, split=split)
    scorer.update(pred, true, keys)
    return scorer.table()


# ------------------------------------------------------------------------------------ aggregate
def aggregate(tables: Iterable[ScoreTable], *, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Means and 95 % intervals of every table, as plain data that JSON can hold (NaN becomes None).

    Returns {modality: {split: {row: {"images": n, "metrics": {name: {"mean", "low", "high"}},
    "beats_constant": bool | None, "versus_constant": {"metric", "difference", "low", "high"} | None}}}}.
    Images are resampled `samples` times from `seed`; scores of class maps are recomputed from the
    resampled areas. A row beats the constant when the interval of the paired difference on the modality's
    primary metric is wholly on the better side; None where no label is valid.
    Raises InputError for two tables with the same name.
    """
    groups: dict[tuple[str, str], dict[str, ScoreTable]] = defaultdict(dict)
    for table in tables:
        rows = groups[table.modality.name, table.split]
        if table.row in rows:
            raise InputError(
                f"aggregate: two tables for {table.modality.name}, split {table.split!r}, row {table.row!r}"
            )
        rows[table.row] = table
    result: dict[str, Any] = {}
    for (name, split), rows in groups.items():
        statistics = {row: _statistics(table, rows.get(CONSTANT)) for row, table in rows.items()}
        intervals: dict[tuple[str, str], Interval] = {}
        for size in {len(table.values) for table in rows.values()}:  # one drawing for all tables of a size
            alike = [row for row, table in rows.items() if len(table.values) == size]
            chosen = {(row, kind): one for row in alike for kind, one in statistics[row].items()}
            found = percentile_intervals([*chosen.values()], Resamples(size, samples, seed))
            intervals |= zip(chosen, found, strict=True)
        result.setdefault(name, {})[split] = {
            row: _summary(table, {kind: intervals[row, kind] for kind in statistics[row]})
            for row, table in rows.items()
        }
    return result


_VERSUS = "versus constant"


def _statistics(table: ScoreTable, constant: ScoreTable | None) -> dict[str, Statistic]:
    """Of all metrics, and the primary one's difference from the constant's."""
    found = {metric.name: table.statistic(metric) for metric in table.modality.metrics}
    if constant is None or table.row == CONSTANT:
        return found
    if not table.values["key"].equals(constant.values["key"]):
        raise InputError(
            f"{table.modality.name}, split {table.split!r}: {table.row!r} and the constant were scored on "
            "different images"
        )
    primary = table.modality.primary_metric
    return found | {_VERSUS: difference(found[primary.name], constant.statistic(primary))}


def _summary(table: ScoreTable, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    metrics = {metric.name: _plain(intervals[metric.name]) for metric in table.modality.metrics}
    entry: dict[str, Any] = {"images": len(table.values), "metrics": metrics}
    entry["beats_constant"], entry["versus_constant"] = None, None
    if _VERSUS in intervals:
        entry.update(_versus(table.modality.primary_metric, intervals[_VERSUS]))
    return entry


def _versus(metric: Metric, interval: Interval) -> dict[str, Any]:
    wins = interval.excludes_zero() and metric.better(interval.value, 0.0)
    plain = _plain(interval)
    versus = {"metric": metric.name, "difference": plain["mean"], "low": plain["low"], "high": plain["high"]}
    return {"beats_constant": bool(wins) if interval.known else None, "versus_constant": versus}


def _plain(interval: Interval) -> dict[str, float | None]:
    return {
        "mean": finite_or_none(interval.value),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
    }


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: values that cannot be computed are null."""
    return float(value) if math.isfinite(value) else None


def pick_cases(table: ScoreTable, metric: Metric) -> Mapping[str, str]:
    """Keys of the best, the median and the worst image by a per-image metric; images without a value are excluded."""
    ranked = (
        table.values[["key", metric.name]]
        .dropna()
        .sort_values([metric.name, "key"], ascending=[not metric.higher_is_better, True])
    )
    if ranked.empty:
        return {}
    keys = ranked["key"].tolist()
    return {"best": keys[0], "median": keys[len(keys) // 2], "worst": keys[-1]}
