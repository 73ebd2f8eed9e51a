"""Exact quantiles of float16 values in constant memory: a stream of depth maps need not fit into memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class HalfHistogram:
    """Counts of positive float16 values; they sort like their bit patterns, so 2^15 counters suffice."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(2**15, dtype=np.int64)

    def update(self, depth: NDArray[Any]) -> None:
        """Count the positive, finite values of an array of any shape; they are rounded to float16."""
        with np.errstate(over="ignore"):
            halves = np.asarray(depth).astype(np.float16)
        valid = np.ascontiguousarray(halves[np.isfinite(halves) & (halves > 0)])
        self._counts += np.bincount(valid.view(np.uint16), minlength=len(self._counts))

    def quantile(self, share: float) -> float:
        """The smallest value with at least `share` of all values at or below it; NaN when there are none."""
        total = int(self._counts.sum())
        if total == 0:
            return float("nan")
        rank = max(1, int(np.ceil(share * total)))
        bits = np.searchsorted(np.cumsum(self._counts), rank)
        return float(np.uint16(bits).view(np.float16))
