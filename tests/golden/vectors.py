"""The golden files of one area: arrays by name, and facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden"
TOLERANCE = 1e-4

MEASURED: dict[str, tuple[float, float]] = {}
"""Item → (largest deviation, tolerance) of everything checked so far; `benchmarks.parity` prints it."""


def measure(name: str, actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Record the difference of `actual` and `expected`; nan and inf count where only one of the two has them."""
    with np.errstate(invalid="ignore"):
        gap = np.where((actual == expected) | (np.isnan(actual) & np.isnan(expected)), 0.0, np.abs(actual - expected))
    MEASURED[name] = float(np.nan_to_num(gap, nan=np.inf).max()), tolerance


class Golden:
    """``golden["in.x"]`` is a tensor, ``golden.array("in.x")`` the numpy array, ``golden.facts`` the rest."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(FOLDER / f"{name}.npz")
        document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        self.names: list[str] = list(document["arrays"])
        self.facts: dict[str, Any] = document["facts"]

    def array(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def check(self, name: str, actual: Tensor | np.ndarray) -> None:
        """Equal to within the tolerance of the golden files, absolute, and of the same shape."""
        actual, expected = np.asarray(actual), self.arrays[name]
        measure(name, actual, expected, TOLERANCE)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE, err_msg=name)

    def check_exact(self, name: str, actual: Tensor | np.ndarray) -> None:
        """Class maps, timesteps and integer tables: no tolerance."""
        actual, expected = np.asarray(actual).astype(np.int64), self.arrays[name].astype(np.int64)
        measure(name, actual, expected, 0)
        assert np.array_equal(actual, expected), name

    def check_levels(self, name: str, actual: np.ndarray, levels: int = 1) -> None:
        """Integer images: within one level."""
        actual, expected = actual.astype(np.int64), self.arrays[name].astype(np.int64)
        measure(name, actual, expected, levels)
        assert actual.shape == expected.shape, name
        assert np.abs(actual - expected).max() <= levels, name
