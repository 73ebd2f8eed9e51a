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
        np.testing.assert_allclose(np.asarray(actual), self.arrays[name], rtol=0, atol=TOLERANCE, err_msg=name)

    def check_levels(self, name: str, actual: np.ndarray, levels: int = 1) -> None:
        """Integer images: within one level."""
        assert actual.shape == self.arrays[name].shape, name
        assert np.abs(actual.astype(np.int64) - self.arrays[name].astype(np.int64)).max() <= levels, name
