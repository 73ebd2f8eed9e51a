"""Scores of one image: its hash, brightness, contrast, clipping and sharpness."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _LOW = 32, 8
# A coefficient this small, of 8-bit levels summed over 1024 pixels, is rounding error.
_NOTHING = 1e-6


def image_scores(rgb: NDArray[np.uint8]) -> dict[str, Any]:
    """Scores of one RGB image, uint8 (H, W, 3); luminance (ITU-R 601) is in 8-bit levels, 0 to 255.

    phash: 64-bit perceptual hash, 16 hex digits; None for an image without any structure.
    mean, std: of the luminance, levels.
    clipped: share of the pixels whose every channel is 0 or 255.
    sharpness: variance of the luminance's Laplacian, levels²; None for images less than 3 pixels wide or high.
    """
    grey = np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float64)
    code = perceptual_hash(rgb)
    return {
        "phash": None if code is None else f"{code:016x}",
        "mean": float(grey.mean()),
        "std": float(grey.std()),
        "clipped": float(((rgb == 0) | (rgb == 255)).all(axis=-1).mean()),
        "sharpness": _laplacian_variance(grey) if min(grey.shape) > 2 else None,
    }


def perceptual_hash(rgb: NDArray[np.uint8]) -> int | None:
    """64 bits: which of the lowest 8 × 8 frequencies of the luminance, at 32 × 32 pixels, are above their median.

    rgb: uint8 (H, W, 3). Copies that are re-encoded, resized or brightened differ in few bits (Zauner 2010). The
    median ignores the mean brightness. None: all frequencies except the mean are zero, so that there is nothing to
    compare; two blank images are not duplicates of each other.
    """
    small = Image.fromarray(rgb).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    cosines = _cosines()
    spectrum = (cosines @ np.asarray(small, dtype=np.float64) @ cosines.T).ravel()
    if np.abs(spectrum[1:]).max() < _NOTHING:
        return None
    bits = spectrum > np.median(spectrum[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _cosines() -> NDArray[np.float64]:
    """Rows of the cosine transform (DCT-II, unscaled): (8, 32)."""
    frequency, position = np.arange(_LOW)[:, None], np.arange(_SIDE)[None]
    return np.asarray(np.cos(np.pi * (position + 0.5) * frequency / _SIDE))


def _laplacian_variance(grey: NDArray[np.float64]) -> float:
    centre = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre).var())
