"""Colour maps and helpers for renderings of labels: (H, W, 3) uint8."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import MissingExtra

UNKNOWN_COLOUR = (128, 128, 128)
"""Pixels without a value: invalid depth, ignored class."""


def load_matplotlib() -> ModuleType:
    """matplotlib, an extra for colour maps and plots; raises MissingExtra with the command that installs it."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    return matplotlib


@cache
def lookup(name: str) -> NDArray[np.uint8]:
    """256 colours of a matplotlib map, (256, 3) uint8."""
    return np.asarray(np.round(load_matplotlib().colormaps[name](np.arange(256))[:, :3] * 255), dtype=np.uint8)


def apply_map(values: NDArray[np.floating[Any]], name: str) -> NDArray[np.uint8]:
    """Colour (H, W) values of [0, 1] (clipped); values that are not finite become grey."""
    finite = np.isfinite(values)
    index = np.round(np.clip(np.where(finite, values, 0.0), 0.0, 1.0) * 255).astype(np.uint8)
    image = lookup(name)[index]
    image[~finite] = UNKNOWN_COLOUR
    return image


def grey_image(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values of [0, 1] (clipped), (H, W) or (H, W, 3), unchanged; NaN becomes grey."""
    image = np.round(np.clip(np.nan_to_num(values.astype(np.float64), nan=0.5), 0, 1) * 255).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
