"""Bootstrap confidence intervals over images: how much a score could change with other test images.

The unit that is resampled is the image, never the pixel: pixels of one image are not independent.
Rows that share images (DMP and the constant predictor) must share the resamples too, so all are drawn from one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps resample weights (S, N) to the statistic of each resample (S,)."""
_MOST_VALUES = 2**22
"""Weights that are multiplied at a time."""


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; NaN if it cannot be computed."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """False if no image has a value, e.g. when no pixel of a split is labelled."""
        return math.isfinite(self.value)

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Resamples:
    """How often each image occurs in each bootstrap resample.

    They are drawn again whenever they are needed, always the same for a seed, since a large set's take too much memory.
    """

    images: int
    samples: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1 or self.samples < 1:
            raise InputError(
                f"bootstrap: needs at least one image and one resample (given: {self.images}, {self.samples})"
            )

    def blocks(self) -> Iterator[NDArray[np.float64]]:
        """Some resamples at a time, (S, images); rows sum to `images`.

        Drawing counts instead of indices turns every resampled mean into one matrix product. Its rounding may depend
        on the number of rows: 64, or a multiple.
        """
        rng, chances = np.random.default_rng(self.seed), np.full(self.images, 1 / self.images)
        rows, at_once = max(_MOST_VALUES // self.images // 64, 1) * 64, max(_MOST_VALUES // self.images // 64, 1)
        for start in range(0, self.samples, rows):
            block = np.empty((min(rows, self.samples - start), self.images))
            for row in range(0, len(block), at_once):
                part = block[row : row + at_once]
                part[:] = rng.multinomial(self.images, chances, size=len(part))
            yield block
            del part, block


def weighted_mean(values: NDArray[np.floating]) -> Statistic:
    """Mean of per-image values (N,) under given weights; images whose value is NaN are ignored.

    An infinite value counts, and makes the mean infinite: otherwise unbounded errors would improve it.
    """
    known, infinite = ~np.isnan(values), np.isinf(values)
    filled = np.where(known & ~infinite, values, 0.0)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray((weights @ filled) / (weights @ known), dtype=np.float64)
        return np.where(weights @ infinite > 0, np.inf, mean) if infinite.any() else mean

    return statistic


def percentile_intervals(statistics: Sequence[Statistic], resamples: Resamples, level: float = 0.95) -> list[Interval]:
    """Of each statistic: its value on the whole set, and the percentile interval over the resamples.

    Resamples without a value (a class that none of their images shows) are not in the percentiles.
    """
    everything = np.ones((1, resamples.images))
    whole = [float(statistic(everything)[0]) for statistic in statistics]
    draws: list[list[NDArray[np.float64]]] = [[] for _ in statistics]
    for block in resamples.blocks():
        for statistic, own in zip(statistics, draws, strict=True):
            own.append(statistic(block))
        del block  # before the next one is drawn
    return [_interval(value, np.concatenate(own), level) for value, own in zip(whole, draws, strict=True)]


def _interval(whole: float, draws: NDArray[np.float64], level: float) -> Interval:
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(whole) or draws.size == 0:
        return Interval(whole, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(whole, float(low), float(high))


def percentile_interval(statistic: Statistic, resamples: Resamples, level: float = 0.95) -> Interval:
    """The same of one statistic."""
    return percentile_intervals([statistic], resamples, level)[0]


def difference(ours: Statistic, theirs: Statistic) -> Statistic:
    """`ours - theirs`; over shared resamples the noise that both share cancels."""
    return lambda weights: ours(weights) - theirs(weights)
