"""Re-stylings of a finished image, guided by its exact geometry. Only the colours change.

Every style maps rgb (H, W, 3) float in 0..1 to the same shape; the labels stay
as they are. Sizes scale with the resolution, so that 64 and 128 look alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dmp_core.render.materials import smooth_noise


@dataclass
class _Canvas:
    """What a style may look at."""

    rgb: np.ndarray  # (H, W, 3) 0..1
    normal: np.ndarray
    depth: np.ndarray
    objects: np.ndarray
    rng: np.random.Generator

    @property
    def size(self) -> int:
        return self.rgb.shape[0]

    @property
    def unit(self) -> int:
        """One brush width in pixels: 1 at 64."""
        return max(1, round(self.size / 64))

    def noise(self, cells: int) -> np.ndarray:
        return smooth_noise(self.rng, (cells, cells), self.size)

    def grain(self, strength: float) -> np.ndarray:
        return self.rng.normal(0, strength, self.rgb.shape[:2])[..., None]


def _luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


def _saturate(rgb: np.ndarray, factor: float) -> np.ndarray:
    grey = _luminance(rgb)[..., None]
    return np.clip(grey + (rgb - grey) * factor, 0, 1)


def _contrast(rgb: np.ndarray, factor: float, pivot: float = 0.45) -> np.ndarray:
    return pivot + (rgb - pivot) * factor


def _ramp(value: np.ndarray, stops: list[tuple[float, float, float]]) -> np.ndarray:
    """Map 0..1 to a colour ramp of evenly spaced stops (0..255)."""
    table = np.array(stops) / 255.0
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(value, at, table[:, c]) for c in range(3)], -1)


def _box_blur(image: np.ndarray, radius: int) -> np.ndarray:
    for axis in (0, 1):
        width = [(radius, radius) if k == axis else (0, 0) for k in range(image.ndim)]
        padded = np.pad(image, width, mode="edge")
        n = image.shape[axis]
        image = np.sum([np.take(padded, range(i, i + n), axis) for i in range(2 * radius + 1)], axis=0) / (
            2 * radius + 1
        )
    return image


def _edges(c: _Canvas) -> np.ndarray:
    """(H, W) 0..1: outlines from objects, creases and jumps of depth; exact, hence clean."""
    out = np.zeros(c.depth.shape)
    log_depth = np.log(np.maximum(c.depth, 0.1))
    for axis in (0, 1):
        jump = (np.diff(c.objects, axis=axis) != 0).astype(float)
        crease = 1 - (np.take(c.normal, range(1, c.size), axis) * np.take(c.normal, range(c.size - 1), axis)).sum(-1)
        step = np.abs(np.diff(log_depth, axis=axis)) > 0.12
        line = np.clip(np.maximum(jump, np.clip(crease * 2.0, 0, 1)) + step, 0, 1)
        out = np.maximum(out, np.pad(line, [(0, 1) if k == axis else (0, 0) for k in range(2)]))
    if c.unit > 1:
        out = np.clip(_box_blur(out, c.unit // 2) * 2.2, 0, 1)
    return out


def _quantise(rgb: np.ndarray, levels: int) -> np.ndarray:
    return np.floor(np.clip(rgb, 0, 0.9999) * levels + 0.5) / levels


def _kuwahara(rgb: np.ndarray, radius: int) -> np.ndarray:
    """The classic painterly filter: each pixel takes the mean of its calmest quadrant."""
    mean, square = _box_blur(rgb, radius), _box_blur(rgb**2, radius)
    variance = (square - mean**2).sum(-1)
    best, best_v = mean, np.full(variance.shape, np.inf)
    for dy in (-radius, radius):
        for dx in (-radius, radius):
            m, v = (np.roll(a, (dy, dx), (0, 1)) for a in (mean, variance))
            take = v < best_v
            best, best_v = np.where(take[..., None], m, best), np.where(take, v, best_v)
    return best


def _strokes(c: _Canvas, length: int, count: int, wobble: float, width: float = 1.0) -> np.ndarray:
    """Short strokes along the surfaces: each copies the colour under its middle."""
    out = _kuwahara(c.rgb, c.unit)
    angle = np.arctan2(c.normal[..., 1], c.normal[..., 0]) + np.pi / 2
    n = c.size
    ys, xs = c.rng.integers(0, n, count), c.rng.integers(0, n, count)
    theta = angle[ys, xs] + c.rng.normal(0, wobble, count)
    colour = np.clip(c.rgb[ys, xs] * c.rng.normal(1, 0.09, (count, 1)) + c.rng.normal(0, 0.02, (count, 3)), 0, 1)
    for t in np.linspace(-length / 2, length / 2, 2 * length + 1):
        for s in np.arange(-(width - 1) / 2, width / 2, 1.0):
            y = np.clip(np.rint(ys + t * np.sin(theta) + s * np.cos(theta)), 0, n - 1).astype(int)
            x = np.clip(np.rint(xs + t * np.cos(theta) - s * np.sin(theta)), 0, n - 1).astype(int)
            same = c.objects[y, x] == c.objects[ys, xs]
            out[y[same], x[same]] = colour[same]
    return out


def _hatch(c: _Canvas, angle: float, spacing: float) -> np.ndarray:
    """(H, W) 0..1 parallel pencil lines, slightly irregular."""
    y, x = np.mgrid[: c.size, : c.size] / c.unit
    t = (x * np.cos(angle) + y * np.sin(angle)) / spacing + c.noise(6) * 0.6
    return 0.5 + 0.5 * np.sin(2 * np.pi * t)


# ---------------------------------------------------------------- styles


def _comic(c: _Canvas) -> np.ndarray:
    flat = _quantise(_saturate(_contrast(_kuwahara(c.rgb, c.unit), 1.25), 1.45) ** 0.85, 4)
    return flat * (1 - 0.9 * _edges(c)[..., None])


def _watercolour(c: _Canvas) -> np.ndarray:
    wash = 0.5 * (_kuwahara(c.rgb, c.unit) + _kuwahara(c.rgb, 2 * c.unit))
    edge = _edges(c)[..., None]
    paper = 0.94 + 0.05 * c.noise(24)[..., None] + c.grain(0.012)
    thin = 0.18 + 0.25 * c.noise(7)[..., None]
    pigment = np.clip(_saturate(wash, 1.35), 0, 1) ** 0.75
    return (pigment * (1 - thin) + paper * thin) * (1 - 0.45 * edge) * np.array([1.0, 0.985, 0.95])


def _oil(c: _Canvas) -> np.ndarray:
    paint = _strokes(c, 4 * c.unit, 700 * c.unit, 0.5, 2.0 * c.unit)
    ridge = _luminance(paint) - np.roll(_luminance(paint), (1, 1), (0, 1))
    return _saturate(_contrast(paint, 1.15), 1.25) * np.array([1.04, 1.0, 0.9]) + 0.35 * ridge[..., None]


def _impressionist(c: _Canvas) -> np.ndarray:
    dabs = _strokes(c, 2 * c.unit, 1800 * c.unit, 1.4, 1.0 * c.unit)
    shimmer = c.rng.normal(0, 0.06, c.rgb.shape)
    return _saturate(dabs**0.82, 1.4) + shimmer * np.array([0.8, 0.6, 1.3])


def _vangogh(c: _Canvas) -> np.ndarray:
    swirl = _Canvas(c.rgb, c.normal, c.depth, c.objects, c.rng)
    field = c.noise(5) * 2 * np.pi
    swirl.normal = np.stack([np.cos(field), np.sin(field), np.zeros_like(field)], -1)
    paint = _strokes(swirl, 6 * c.unit, 1100 * c.unit, 0.25, 1.0 * c.unit)
    grey = _luminance(paint)
    tone = _ramp(
        np.clip(grey * 1.15, 0, 1), [(14, 22, 66), (34, 74, 150), (96, 150, 180), (232, 190, 70), (255, 240, 170)]
    )
    return 0.5 * _saturate(paint, 1.5) + 0.5 * tone


def _sketch(c: _Canvas) -> np.ndarray:
    tone = _luminance(c.rgb)
    lines = np.clip(0.72 - tone, 0, 1) * (_hatch(c, 0.8, 3.2) > 0.5) * 0.8
    lines += np.clip(0.42 - tone, 0, 1) * (_hatch(c, -0.7, 2.8) > 0.5) * 0.9
    graphite = np.clip(lines + 0.85 * _edges(c), 0, 1)
    return (0.96 - 0.8 * graphite)[..., None] * np.array([1.0, 0.99, 0.96]) + c.grain(0.02)


def _charcoal(c: _Canvas) -> np.ndarray:
    tone = _box_blur(_luminance(c.rgb), c.unit)
    smear = np.clip(_contrast(tone, 1.5, 0.5) + 0.12 * (c.noise(20) - 0.5), 0.04, 0.92)
    return (smear * (1 - 0.8 * _edges(c)))[..., None] * np.array([1.0, 0.98, 0.95]) + c.grain(0.05)


def _ink(c: _Canvas) -> np.ndarray:
    tone = _luminance(c.rgb) + 0.28 * (_hatch(c, 0.5, 2.6) - 0.5) + 0.06 * (c.noise(16) - 0.5)
    black = np.maximum(_edges(c) > 0.45, tone < 0.4)
    return np.where(black[..., None], np.array([0.09, 0.08, 0.1]), np.array([0.95, 0.92, 0.84]))


def _neon(c: _Canvas) -> np.ndarray:
    dark = _ramp(
        np.clip(_luminance(c.rgb) * 1.05, 0, 1),
        [(6, 4, 22), (40, 14, 84), (120, 24, 130), (230, 70, 170), (120, 240, 255)],
    )
    edge = _edges(c)
    hue = c.noise(4)[..., None]
    glow = np.where(hue > 0.5, np.array([1.0, 0.1, 0.75]), np.array([0.05, 0.95, 1.0]))
    light = (0.8 * edge + 0.9 * _box_blur(edge, c.unit) + 0.5 * _box_blur(edge, 3 * c.unit))[..., None]
    return 0.75 * dark + 0.2 * c.rgb * np.array([0.6, 0.4, 1.0]) + glow * light * 0.7


def _vaporwave(c: _Canvas) -> np.ndarray:
    tone = np.clip(_contrast(_luminance(c.rgb), 1.2), 0, 1)
    return (
        _ramp(tone, [(44, 20, 92), (140, 60, 170), (255, 113, 180), (255, 190, 170), (150, 240, 240)]) * 0.85
        + 0.15 * c.rgb
    )


def _pixel(c: _Canvas) -> np.ndarray:
    cell = max(2, round(c.size / 36))
    n = -(-c.size // cell)
    at = np.minimum(np.arange(n) * cell + cell // 2, c.size - 1)
    small = _quantise(_saturate(_box_blur(c.rgb, max(1, cell // 3))[np.ix_(at, at)], 1.4), 5)
    return np.repeat(np.repeat(small, cell, 0), cell, 1)[: c.size, : c.size]


def _vignette(size: int, strength: float) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return (1 - strength * np.clip(x**2 + y**2 - 0.3, 0, None))[..., None]


def _sepia(c: _Canvas) -> np.ndarray:
    tone = np.clip(_contrast(_luminance(c.rgb), 1.15) + c.grain(0.035)[..., 0], 0, 1)
    return _ramp(tone, [(38, 24, 14), (120, 84, 52), (204, 168, 122), (248, 232, 200)]) * _vignette(c.size, 0.32)


def _mono(c: _Canvas) -> np.ndarray:
    tone = np.clip(_contrast(_luminance(c.rgb), 1.5, 0.5), 0, 1)
    return np.repeat((tone + c.grain(0.025)[..., 0])[..., None], 3, -1) * _vignette(c.size, 0.25)


_POP = np.array([
    [[26, 20, 90], [236, 40, 120], [255, 210, 50]], [[20, 80, 110], [250, 120, 40], [250, 240, 170]],
    [[90, 10, 90], [40, 190, 190], [250, 230, 80]], [[10, 60, 60], [230, 60, 60], [140, 230, 220]],
]) / 255.0  # fmt: skip


def _popart(c: _Canvas) -> np.ndarray:
    tone = _luminance(_kuwahara(c.rgb, c.unit))
    levels = np.digitize(tone, np.quantile(tone, [0.33, 0.7]))
    colours = _POP[c.objects % len(_POP), levels]
    y, x = np.mgrid[: c.size, : c.size] / c.unit
    dots = (np.hypot((x % 4) - 1.5, (y % 4) - 1.5) < 1.1) & (levels == 1)
    colours = np.where(dots[..., None], colours * 0.75, colours)
    return colours * (1 - 0.9 * (_edges(c) > 0.5)[..., None])


def _pastel(c: _Canvas) -> np.ndarray:
    soft = _kuwahara(c.rgb, c.unit) * 0.55 + 0.45
    chalk = 0.05 * (_hatch(c, 0.9, 2.2) - 0.5)[..., None] + c.grain(0.03)
    return _saturate(soft, 1.5) + chalk - 0.12 * _edges(c)[..., None]


def _cells(c: _Canvas, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) Voronoi cell numbers and the distance to the second nearest seed, minus the first."""
    points = c.rng.random((count, 2)) * c.size
    y, x = np.mgrid[: c.size, : c.size]
    distance = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1]) + 6 * c.unit * (
        c.objects[..., None] != c.objects[points[:, 0].astype(int), points[:, 1].astype(int)]
    )
    nearest = np.argpartition(distance, 1, axis=-1)[..., :2]
    two = np.sort(np.take_along_axis(distance, nearest, -1), -1)
    return distance.argmin(-1), two[..., 1] - two[..., 0]


def _cell_means(rgb: np.ndarray, cell: np.ndarray, count: int) -> np.ndarray:
    n = np.maximum(np.bincount(cell.ravel(), minlength=count), 1)
    means = np.stack([np.bincount(cell.ravel(), rgb[..., k].ravel(), count) / n for k in range(3)], -1)
    return means[cell]


def _mosaic(c: _Canvas) -> np.ndarray:
    cell, gap = _cells(c, 240)
    glass = _saturate(_cell_means(c.rgb, cell, 240), 1.7) ** 0.8
    return np.where((gap < 0.55 * c.unit)[..., None], 0.1, glass)


def _cubist(c: _Canvas) -> np.ndarray:
    cell, gap = _cells(c, 42)
    angle = c.rng.uniform(0, 6.3, 42)[cell]
    y, x = np.mgrid[: c.size, : c.size]
    slope = (x * np.cos(angle) + y * np.sin(angle)) / c.size
    shift = (c.rng.normal(0, 3.0 * c.unit, (42, 2))[cell]).astype(int)
    moved = c.rgb[np.clip(y + shift[..., 0], 0, c.size - 1), np.clip(x + shift[..., 1], 0, c.size - 1)]
    tone = np.clip(moved * 0.75 + 0.25 * (slope % 0.5 + 0.3)[..., None], 0, 1)
    earth = _ramp(_luminance(tone), [(40, 34, 32), (120, 92, 66), (196, 164, 118), (240, 226, 196)])
    return np.where((gap < 0.7 * c.unit)[..., None], 0.12, 0.55 * _saturate(tone, 1.2) + 0.45 * earth)


def _ukiyoe(c: _Canvas) -> np.ndarray:
    tone = _kuwahara(c.rgb, 2 * c.unit)
    ink = (
        np.array([[32, 46, 82], [74, 108, 142], [196, 92, 70], [214, 170, 110], [232, 214, 176], [122, 140, 106]])
        / 255.0
    )
    distance = ((tone[..., None, :] * 1.1 - ink) ** 2).sum(-1)
    flat = ink[distance.argmin(-1)]
    return (flat * 0.75 + 0.25 * tone + 0.03 * (c.noise(32)[..., None] - 0.5)) * (
        1 - 0.85 * (_edges(c) > 0.4)[..., None]
    )


def _thermal(c: _Canvas) -> np.ndarray:
    heat = 0.6 * _box_blur(_luminance(c.rgb), c.unit) + 0.4 * np.clip(2.5 / np.maximum(c.depth, 1.0), 0, 1)
    return _ramp(np.clip(heat, 0, 1), [(10, 4, 60), (110, 10, 140), (220, 50, 60), (255, 170, 20), (255, 255, 210)])


def _blueprint(c: _Canvas) -> np.ndarray:
    paper = np.array([22, 62, 130]) / 255.0 + 0.02 * (c.noise(12)[..., None] - 0.5)
    y, x = np.mgrid[: c.size, : c.size] // c.unit
    grid = ((x % 8 == 0) | (y % 8 == 0)).astype(float)[..., None] * 0.06
    shade = 0.16 * _luminance(c.rgb)[..., None]
    return paper + grid + shade + _edges(c)[..., None] * np.array([0.7, 0.75, 0.7])


def _crayon(c: _Canvas) -> np.ndarray:
    wax = _saturate(_quantise(_kuwahara(c.rgb, c.unit), 5), 1.7) ** 0.8
    gaps = (_hatch(c, 1.0, 2.4) * 0.6 + 0.5 * c.noise(30) > 0.78)[..., None]
    return np.where(gaps, 0.5 * wax + 0.48, wax) * (1 - 0.5 * _edges(c)[..., None])


def _poster(c: _Canvas) -> np.ndarray:
    tone = np.clip(_luminance(_kuwahara(c.rgb, c.unit)), 0, 1)
    base = c.rng.random()
    inks = np.array([[0.1, 0.12, 0.2], [0, 0, 0], [0, 0, 0], [0.97, 0.92, 0.8]])
    for k, value in ((1, 0.65), (2, 0.9)):
        h = (base + 0.13 * k) * 2 * np.pi
        inks[k] = np.clip(value * (0.65 + 0.45 * np.cos(h + np.array([0.0, -2.1, 2.1]))), 0, 1)
    return inks[np.digitize(tone, np.quantile(tone, [0.25, 0.5, 0.78]))]


def _fantasy(c: _Canvas) -> np.ndarray:
    bloom = _box_blur(np.clip(c.rgb - 0.45, 0, 1), 4 * c.unit) * 1.5
    mist = np.clip(np.log(np.maximum(c.depth, 1.0)) / 5, 0, 1)[..., None] * np.array([0.42, 0.3, 0.62])
    return (
        _saturate(_contrast(c.rgb, 1.1), 1.5) * np.array([0.95, 0.85, 1.1])
        + bloom * np.array([1.0, 0.75, 1.0])
        + 0.5 * mist
    )


def _steampunk(c: _Canvas) -> np.ndarray:
    brass = _ramp(
        np.clip(_contrast(_luminance(c.rgb), 1.25), 0, 1), [(24, 16, 12), (96, 58, 28), (190, 128, 54), (250, 220, 150)]
    )
    return (0.7 * brass + 0.3 * c.rgb) * _vignette(c.size, 0.4) * (1 - 0.5 * _edges(c)[..., None])


STYLES: dict[str, Callable[[_Canvas], np.ndarray]] = {
    "comic": _comic, "watercolour": _watercolour, "oil": _oil, "impressionist": _impressionist, "vangogh": _vangogh,
    "sketch": _sketch, "charcoal": _charcoal, "ink": _ink, "neon": _neon, "vaporwave": _vaporwave, "pixel": _pixel,
    "sepia": _sepia, "mono": _mono, "popart": _popart, "pastel": _pastel, "mosaic": _mosaic, "cubist": _cubist,
    "ukiyoe": _ukiyoe, "thermal": _thermal, "blueprint": _blueprint, "crayon": _crayon, "poster": _poster,
    "fantasy": _fantasy, "steampunk": _steampunk,
}  # fmt: skip


def apply_style(
    style: str, rgb: np.ndarray, normal: np.ndarray, depth: np.ndarray, objects: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Re-style rgb (H, W, 3) uint8; the other arrays are the labels (H, W, ...), read only. Returns uint8."""
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; known: {', '.join(sorted(STYLES))}")
    canvas = _Canvas(rgb.astype(np.float64) / 255.0, normal, depth, objects, rng)
    return np.rint(255 * np.clip(STYLES[style](canvas), 0, 1)).astype(np.uint8)
