"""A new light on predicted surfaces: albedo × shading, with the shading from the normals (Lambert's cosine law)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

AMBIENT = 0.2
"""Share of the light that comes from everywhere, so that surfaces turned away are not black."""


def light_direction(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Unit vector to the light, axes as the normals': x right, y up, z toward the viewer.

    azimuth: degrees in the image's plane, 0 right, 90 up; elevation: degrees from that plane toward the viewer.
    """
    around, up = math.radians(azimuth), math.radians(elevation)
    return np.array([math.cos(up) * math.cos(around), math.cos(up) * math.sin(around), math.sin(up)])


def shading(normals: NDArray[Any], light: NDArray[np.float64], ambient: float = AMBIENT) -> NDArray[np.float64]:
    """ambient + (1 - ambient) × max(0, n · l) for each pixel, (H, W) in [0, 1]; normals without a length get `ambient`.

    normals: (H, W, 3) of any length.
    """
    length = np.linalg.norm(normals, axis=-1)
    cosine = np.asarray(normals, np.float64) @ light / np.maximum(length, 1e-6)
    return ambient + (1 - ambient) * np.clip(cosine, 0, 1)


def relit(
    albedo: NDArray[Any], normals: NDArray[Any], azimuth: float, elevation: float, ambient: float = AMBIENT
) -> NDArray[np.uint8]:
    """The image under one distant light, uint8 (H, W, 3). albedo: display values in [0, 1], (H, W, 3)."""
    lit = np.asarray(albedo, np.float64) * shading(normals, light_direction(azimuth, elevation), ambient)[..., None]
    return np.round(np.clip(lit, 0, 1) * 255).astype(np.uint8)
