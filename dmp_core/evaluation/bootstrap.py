"""Bootstrap confidence intervals over images: how much a score could change with other test images.

The unit that is resampled is the image, never the pixel: pixels of one image are not independent.
Rows that share images (DMP and the constant predictor) must share the resamples too, so every
function takes the same `weights`, drawn once from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps resample weights (S, N) to the statistic of each resample (S,)."""
_MOST_VALUES = 2**22
"""Weights that are drawn, or multiplied, at a time."""


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


def resample_weights(images: int, samples: int, seed: int = 0) -> NDArray[np.uint8]:
    """How often each image occurs in each bootstrap resample: (samples, images), rows sum to `images`.

    Drawing counts instead of indices turns every resampled mean into one matrix product. Counts fit into a byte: one
    above 255 has a probability below 1e-500.
    """
    if images < 1 or samples < 1:
        raise InputError(f"bootstrap: needs at least one image and one resample (given: {images}, {samples})")
    rng, weights = np.random.default_rng(seed), np.empty((samples, images), np.uint8)
    for rows in _blocks(weights):
        rows[:] = rng.multinomial(images, np.full(images, 1 / images), size=len(rows))
    return weights


def _blocks(weights: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Views of some resamples each, so that large sets need little memory."""
    rows = max(_MOST_VALUES // weights.shape[1] // 64, 1) * 64
    for start in range(0, len(weights), rows):
        yield weights[start : start + rows]


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


def percentile_interval(statistic: Statistic, weights: NDArray[np.uint8], level: float = 0.95) -> Interval:
    """The statistic of the whole set, and the percentile interval of its resamples.

    weights: (S, N) of `resample_weights`. Resamples without a value (a class that none of their
    images shows) are not in the percentiles.
    """
    whole = float(statistic(np.ones((1, weights.shape[1])))[0])
    draws = np.concatenate([statistic(rows.astype(np.float64)) for rows in _blocks(weights)])
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(whole) or draws.size == 0:
        return Interval(whole, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(whole, float(low), float(high))


def paired_interval(ours: Statistic, theirs: Statistic, weights: NDArray[np.uint8], level: float = 0.95) -> Interval:
    """Interval of `ours - theirs` over shared resamples: the noise that both share cancels."""
    return percentile_interval(lambda w: ours(w) - theirs(w), weights, level)
