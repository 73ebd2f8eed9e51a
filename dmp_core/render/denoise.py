"""Monte Carlo noise out of the shading, guided by the exact labels.

The edge-avoiding a-trous filter of Dammertz et al. 2010: five-by-five B-spline
taps with holes, whose weights fall off where normals, depth or objects differ.
Only the shading is filtered; albedo is exact already, so textures stay sharp.
"""

from __future__ import annotations

import numpy as np

_TAPS = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
_MARGIN = 16  # two taps at the widest hole (step 8)


def despeckle(value: np.ndarray, limit: float = 2.0) -> np.ndarray:
    """Clamp fireflies of (H, W) to `limit` times the median of their 3 x 3 neighbourhood."""
    h, w = value.shape
    padded = np.pad(value, 1, mode="edge")
    stack = np.stack([padded[i : i + h, j : j + w] for i in range(3) for j in range(3)])
    return np.minimum(value, limit * np.median(stack, axis=0) + 1e-4)


def atrous(
    shading: np.ndarray, weight: np.ndarray, normal: np.ndarray, depth: np.ndarray, group: np.ndarray, levels: int = 3
) -> np.ndarray:
    """Filter shading (H, W) >= 0; weight (H, W) is 0 where the value is void (it is then filled in).

    normal (H, W, 3) unit, depth (H, W) metres, group (H, W) ids: guides. Returns (H, W).
    The first level trusts the guides alone: the raw values are too noisy to tell a
    shadow's edge. Later levels also respect edges in what has been filtered so far.
    """
    log_depth = np.log(np.maximum(depth, 0.1)) / 0.06  # the tolerance grows with distance
    guides = [_padded(g) for g in (*np.moveaxis(normal, -1, 0), log_depth, group)]
    value, w = shading.astype(np.float32), weight.astype(np.float32)
    for level in range(levels):
        value, w = _pass(value, w, guides, 1 << level, None if level == 0 else 0.5 / level)
    return value


def _padded(a: np.ndarray) -> np.ndarray:
    return np.pad(a.astype(np.float32), _MARGIN, mode="edge")


def _shift(a: np.ndarray, dy: int, dx: int) -> np.ndarray:
    h, w = a.shape[0] - 2 * _MARGIN, a.shape[1] - 2 * _MARGIN
    return a[_MARGIN + dy : _MARGIN + dy + h, _MARGIN + dx : _MARGIN + dx + w]


def _pass(
    value: np.ndarray, weight: np.ndarray, guides: list[np.ndarray], step: int, tolerance: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """One level; tolerance is the relative difference in value that counts as an edge."""
    padded, padded_w = _padded(value), np.pad(weight, _MARGIN)
    centre = [_shift(g, 0, 0) for g in guides]
    total, norm = np.zeros_like(value), np.zeros_like(value)
    for i in range(-2, 3):
        for j in range(-2, 3):
            dy, dx = i * step, j * step
            nx, ny, nz, plane, group = (_shift(g, dy, dx) for g in guides)
            facing = np.clip(nx * centre[0] + ny * centre[1] + nz * centre[2], 0, 1)
            facing = facing * facing * facing * facing
            w = np.float32(_TAPS[i + 2] * _TAPS[j + 2]) * facing * facing * facing * facing * (group == centre[4])
            w *= _shift(padded_w, dy, dx)
            neighbour = _shift(padded, dy, dx)
            fall = np.abs(plane - centre[3]) * np.float32(1 / step)
            if tolerance is not None:
                relative = (neighbour - value) / (np.float32(tolerance / 2) * (value + neighbour) + np.float32(0.01))
                fall = fall + np.where(weight > 0, relative * relative, 0)
            w *= np.exp(-fall)
            total += w * neighbour
            norm += w
    filled = np.where(norm > 1e-8, total / np.maximum(norm, 1e-8), value)
    return filled, np.where(norm > 1e-8, np.maximum(weight, np.float32(1e-3)), np.float32(0))


def fill_void(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Give void pixels (weight 0) the mean of their valid 3 x 3 neighbours, else the overall median."""
    valid = weight > 0
    if valid.all() or not valid.any():
        return value
    padded = np.pad(np.where(valid, value, 0.0), 1)
    count = np.pad(valid.astype(np.float32), 1)
    h, w = value.shape
    windows = [(i, j) for i in range(3) for j in range(3)]
    total = sum(padded[i : i + h, j : j + w] for i, j in windows)
    n = sum(count[i : i + h, j : j + w] for i, j in windows)
    return np.where(valid, value, np.where(n > 0, total / np.maximum(n, 1), np.median(value[valid])))
