"""Surface colours and procedural textures.

Colours are display values 0..255 under a pure power gamma of 2.2; everything
that reaches the path tracer is linear. Only diffuse reflectance exists, so that
image = albedo x shading holds by physics.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dmp_core.render.vocabulary import RGB, as_rgb

GAMMA = 2.2


@dataclass(frozen=True)
class Material:
    """One surface. `period` is the texture's repeat in metres (pictures have uv in 0..1: period 1)."""

    colour: RGB = (200.0, 200.0, 200.0)
    texture: str = "plain"
    second: RGB | None = None
    period: float = 1.0
    emission: float = 0.0
    seed: int = 0
    fixed: bool = False  # a light that the mood's lamp level does not scale

    def with_colour(self, colour: RGB) -> Material:
        return replace(self, colour=colour, second=None)


def to_linear(display: np.ndarray | RGB) -> np.ndarray:
    """0..255 display values to linear 0..1."""
    return (np.clip(np.asarray(display, dtype=np.float64), 0, 255) / 255.0) ** GAMMA


def shade(colour: RGB, factor: float) -> RGB:
    """Darker (factor < 1) or lighter (factor > 1, towards white) display colour."""
    c = np.asarray(colour, dtype=float)
    out = c * factor if factor <= 1 else c + (255 - c) * (factor - 1)
    return as_rgb(np.clip(out, 0, 255))


def mix(a: RGB, b: RGB, t: float) -> RGB:
    return as_rgb(x + (y - x) * t for x, y in zip(a, b, strict=True))


SIZE = 64  # texels a side; a repeat seldom covers more pixels than that


def _coordinates() -> tuple[np.ndarray, np.ndarray]:
    """(row, column) in 0..1, row 0 at the bottom (v = 0)."""
    return np.meshgrid((np.arange(SIZE) + 0.5) / SIZE, (np.arange(SIZE) + 0.5) / SIZE, indexing="ij")


def _lerp(a: RGB, b: RGB, t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)[..., None]
    return np.asarray(a) * (1 - t) + np.asarray(b) * t


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int] = (8, 8), size: int = SIZE) -> np.ndarray:
    """Tileable value noise in 0..1, bilinear between random lattice values."""
    grid = rng.random(cells)
    r, c = (np.arange(size) / size * n for n in cells)
    r0, c0 = r.astype(int), c.astype(int)
    fr, fc = (r - r0)[:, None], (c - c0)[None, :]
    r1, c1 = (r0 + 1) % cells[0], (c0 + 1) % cells[1]
    return (
        grid[r0][:, c0] * (1 - fr) * (1 - fc)
        + grid[r1][:, c0] * fr * (1 - fc)
        + grid[r0][:, c1] * (1 - fr) * fc
        + grid[r1][:, c1] * fr * fc
    )


def _wood(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, _ = _coordinates()
    rings = np.sin((v * 5 + smooth_noise(rng, (6, 2)) * 0.9) * 2 * np.pi)
    return _lerp(a, b, 0.5 + 0.4 * rings + 0.25 * (rng.random((SIZE, SIZE)) - 0.5))


def _planks(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    rows = 6
    v, u = _coordinates()
    row = (u * rows).astype(int)
    along = (v + rng.random(rows)[row]) % 1.0
    tone = rng.random((rows, 2))[row, (along * 2).astype(int)]
    grain = smooth_noise(rng, (4, 32)) * 0.35
    seam = ((u * rows) % 1 < 0.09) | ((along * 2) % 1 < 0.025)
    image = _lerp(a, b, tone * 0.75 + grain)
    return np.where(seam[..., None], np.asarray(b) * 0.55, image)


def _tiles(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    n = 4
    grout = ((u * n) % 1 < 0.08) | ((v * n) % 1 < 0.08)
    tone = rng.random((n, n))[(v * n).astype(int), (u * n).astype(int)]
    return np.where(grout[..., None], np.asarray(b), _lerp(a, b, tone * 0.18))


def _checks(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    return _lerp(a, b, (((u * 4).astype(int) + (v * 4).astype(int)) % 2).astype(float))


def _stripes(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    _, u = _coordinates()
    return _lerp(a, b, ((u * 4) % 1 > 0.55).astype(float))


def _plaid(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    band = ((u * 2) % 1 > 0.6).astype(float) + ((v * 2) % 1 > 0.6)
    line = ((u * 2 + 0.2) % 1 > 0.94) | ((v * 2 + 0.2) % 1 > 0.94)
    image = _lerp(a, b, band * 0.5)
    return np.where(line[..., None], np.asarray((236.0, 232.0, 220.0)), image)


def _dots(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    shift = ((v * 4).astype(int) % 2) * 0.5
    near = np.hypot((u * 4 + shift) % 1 - 0.5, (v * 4) % 1 - 0.5) < 0.28
    return _lerp(a, b, near.astype(float))


def _floral(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    image = np.broadcast_to(np.asarray(a, dtype=float), (SIZE, SIZE, 3)).copy()
    for _ in range(9):
        cu, cv, r, turn = rng.random(), rng.random(), rng.uniform(0.07, 0.13), rng.uniform(0, 6)
        du, dv = (u - cu + 0.5) % 1 - 0.5, (v - cv + 0.5) % 1 - 0.5
        radius, angle = np.hypot(du, dv), np.arctan2(dv, du)
        image[radius < r * 1.25 * (0.35 + 0.3 * np.cos(2 * angle + turn))] = (88, 128, 76)
        image[radius < r * (0.72 + 0.28 * np.cos(5 * angle + turn))] = b
        image[radius < r * 0.3] = (238, 208, 96)
    return image


def _motif(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    shift = ((u * 3).astype(int) % 2) * 0.5
    du, dv = (u * 3) % 1 - 0.5, (v * 3 + shift) % 1 - 0.5
    diamond = np.abs(du) + np.abs(dv) * 0.7
    return _lerp(a, b, ((diamond < 0.34) & (diamond > 0.2)) | (diamond < 0.08))


def _brick(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    row = (v * 8).astype(int)
    shifted = (u * 4 + (row % 2) * 0.5) % 4
    tone = rng.random((8, 4))[row, shifted.astype(int)]
    mortar = ((v * 8) % 1 < 0.16) | (shifted % 1 < 0.08)
    return np.where(mortar[..., None], np.asarray(mix(b, (214, 206, 194), 0.7)), _lerp(a, shade(a, 0.62), tone))


def _stone(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    points = rng.random((18, 2))
    du = np.abs(u[..., None] - points[:, 0])
    dv = np.abs(v[..., None] - points[:, 1])
    distance = np.hypot(np.minimum(du, 1 - du), np.minimum(dv, 1 - dv))
    order = np.argsort(distance, axis=-1)
    first, second = (np.take_along_axis(distance, order[..., [k]], -1)[..., 0] for k in (0, 1))
    tone = rng.random(18)[order[..., 0]]
    image = _lerp(shade(a, 1.12), shade(a, 0.72), tone * 0.8 + smooth_noise(rng) * 0.3)
    return np.where((second - first < 0.022)[..., None], np.asarray(shade(a, 0.5)), image)


def _marble(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    warp = smooth_noise(rng, (4, 4)) * 1.3 + smooth_noise(rng, (9, 9)) * 0.5
    vein = np.abs(np.sin((u + v + warp) * 2 * np.pi)) ** 0.35
    return _lerp(shade(a, 0.62), a, vein)


def _noise(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    return _lerp(a, b, 0.15 + 0.5 * smooth_noise(rng, (6, 6)) + 0.2 * rng.random((SIZE, SIZE)))


def _carpet(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    return _lerp(a, b, 0.25 + 0.35 * rng.random((SIZE, SIZE)) + 0.3 * smooth_noise(rng, (12, 12)))


def _weave(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    over = np.sin(u * 16 * np.pi) * np.sin(v * 16 * np.pi)
    return _lerp(a, b, 0.3 + 0.3 * over)


def _persian(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A whole rug (uv 0..1): border bands around a medallion."""
    v, u = _coordinates()
    edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    image = np.broadcast_to(np.asarray(a, dtype=float), (SIZE, SIZE, 3)).copy()
    diamond = np.abs(u - 0.5) + np.abs(v - 0.5) * 0.8
    image[(diamond < 0.3)] = b
    image[(diamond < 0.22)] = mix(a, b, 0.35)
    image[(diamond < 0.1)] = shade(b, 1.3)
    image[(edge < 0.14) & (edge > 0.05)] = b
    beads = (edge < 0.115) & (edge > 0.075) & (np.sin(u * 60) * np.sin(v * 60) > 0)
    image[beads] = a
    image[edge < 0.02] = shade(b, 0.6)
    return image


def _border(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A plain rug with a border (uv 0..1)."""
    v, u = _coordinates()
    edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    image = _carpet(a, shade(a, 0.85), rng)
    image[(edge < 0.12) & (edge > 0.06)] = b
    return image


def _leaves(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    return _lerp(a, b, 1.3 * smooth_noise(rng, (10, 10)) - 0.15 + 0.3 * (rng.random((SIZE, SIZE)) - 0.5))


def _books(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A row of spines (uv 0..1): colours around a and b and some of their own."""
    image = np.zeros((SIZE, SIZE, 3))
    image[:] = shade(a, 0.25)
    x = 0
    while x < SIZE:
        w, h = int(rng.integers(2, 6)), int(SIZE * rng.uniform(0.68, 0.95))
        hue = rng.uniform(0, 255, 3) * 0.7 + 30
        pick = (a, b, tuple(hue), (226, 218, 200), tuple(hue))[int(rng.integers(5))]
        image[:h, x : x + w - (w > 2)] = pick
        if w > 3:
            image[int(h * 0.7) : int(h * 0.8), x : x + w - 1] = shade(pick, 1.5)
        x += w
    return image


def _facade(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A storey of windows in a wall: repeats every period."""
    v, u = _coordinates()
    n = 3
    x, y = (u * n) % 1, (v * n) % 1
    frame = (np.abs(x - 0.5) < 0.3) & (np.abs(y - 0.52) < 0.34)
    pane = (np.abs(x - 0.5) < 0.23) & (np.abs(y - 0.52) < 0.28) & (np.abs(x - 0.5) > 0.03)
    image = _lerp(a, shade(a, 0.85), rng.random((SIZE, SIZE)) * 0.6)
    image[frame] = shade(a, 1.5)
    glass = _lerp(b, shade(b, 1.4), rng.random((n, n))[(v * n).astype(int), (u * n).astype(int)])
    return np.where(pane[..., None], glass, image)


def _sky_picture(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """The view from a window (uv 0..1): sky, clouds and a line of trees or roofs."""
    v, u = _coordinates()
    cloud = smooth_noise(rng, (5, 3)) * 0.6 + smooth_noise(rng, (9, 6)) * 0.4
    image = _lerp(shade(a, 1.55), a, v)
    image = image + (np.asarray(shade(a, 1.85)) - image) * (np.clip((cloud - 0.55) * 4, 0, 1) * (v > 0.35))[..., None]
    horizon = 0.12 + 0.2 * rng.random() + 0.1 * smooth_noise(rng, (1, 7))
    if rng.random() < 0.35:  # a skyline of blocks in place of tree tops
        horizon = (0.12 + 0.35 * rng.random(9))[(u * 9).astype(int)]
    ground = _lerp(b, shade(b, 0.6), smooth_noise(rng, (12, 12)))
    return np.where((v < horizon)[..., None], ground, image)


def _picture(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """Wall art (uv 0..1): landscape, abstract blocks, portrait or sun."""
    v, u = _coordinates()
    kind = int(rng.integers(5))
    c = as_rgb(rng.uniform(40, 235, 3))
    if kind == 0:
        ridge = 0.35 + 0.18 * np.sin(u * 7 + rng.uniform(0, 6)) + 0.08 * smooth_noise(rng, (1, 8))
        image = _lerp(shade(a, 1.4), a, v)
        return np.where((v < ridge)[..., None], _lerp(shade(b, 0.6), b, v * 2), image)
    if kind == 1:
        image = np.broadcast_to(np.asarray(mix(a, (236.0, 230.0, 216.0), 0.6)), (SIZE, SIZE, 3)).copy()
        for colour in (a, b, c, shade(a, 0.6), (40, 40, 44)):
            x, y, w, h = rng.random(), rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5)
            image[(np.abs(u - x) < w / 2) & (np.abs(v - y) < h / 2)] = colour
        return image
    if kind == 2:
        image = _lerp(shade(a, 0.7), shade(a, 0.45), v)
        image[np.hypot(u - 0.5, (v - 0.12) * 0.8) < 0.36] = b
        image[np.hypot((u - 0.5) * 1.2, v - 0.6) < 0.2] = (226, 178, 144)
        image[(np.hypot((u - 0.5) * 1.1, v - 0.7) < 0.21) & (v > 0.68)] = (70, 46, 32)
        return image
    if kind == 3:
        image = _lerp(a, shade(a, 1.6), 1 - v)
        image[np.hypot(u - 0.5, v - 0.58) < 0.22] = b
        image[v < 0.25] = shade(b, 0.5)
        return image
    swirl = smooth_noise(rng, (4, 4)) + smooth_noise(rng, (7, 7)) * 0.5
    return _lerp(a, b, (swirl * 3) % 1)


def _screen(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A lit display (uv 0..1): windows and lines of text."""
    v, u = _coordinates()
    image = _lerp(a, shade(a, 0.6), v)
    window = (np.abs(u - 0.45) < 0.33) & (np.abs(v - 0.5) < 0.33)
    image[window] = (226, 230, 236)
    image[window & (v > 0.74)] = b
    image[window & ((v * 14) % 1 < 0.4) & (u < 0.3 + 0.4 * rng.random(SIZE)[:, None]) & (v < 0.72)] = (110, 118, 130)
    return image


def _clock(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, u = _coordinates()
    image = np.broadcast_to(np.asarray(a, dtype=float), (SIZE, SIZE, 3)).copy()
    image[(np.abs(u - 0.5) < 0.035) & (v > 0.48) & (v < 0.85)] = (30, 30, 34)
    image[(np.abs(v - 0.5) < 0.035) & (u > 0.48) & (u < 0.75)] = (30, 30, 34)
    return image


def _sign(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """Lettering-like bars on a board (uv 0..1)."""
    v, u = _coordinates()
    letters = (rng.random(12) > 0.25)[(u * 12).astype(int)] & ((u * 12) % 1 < 0.7)
    image = np.broadcast_to(np.asarray(a, dtype=float), (SIZE, SIZE, 3)).copy()
    image[letters & (np.abs(v - 0.5) < 0.2) & (u > 0.08) & (u < 0.92)] = b
    return image


def _goods(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """Packets side by side on a shelf (uv 0..1)."""
    image = np.zeros((SIZE, SIZE, 3))
    image[:] = shade(b, 0.3)
    x = 0
    while x < SIZE:
        w, h = int(rng.integers(5, 12)), int(SIZE * rng.uniform(0.5, 0.95))
        hue = tuple(rng.uniform(20, 250, 3))
        image[:h, x : x + w - 1] = hue
        image[int(h * 0.45) : int(h * 0.7), x : x + w - 1] = shade(hue, 1.7)
        x += w
    return image


def _lawn(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    return _lerp(a, b, 0.6 * smooth_noise(rng, (5, 5)) + 0.4 * rng.random((SIZE, SIZE)))


def _waves(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    v, _ = _coordinates()
    ripple = np.sin((v * 6 + smooth_noise(rng, (3, 6)) * 0.8) * 2 * np.pi)
    return _lerp(a, b, 0.4 + 0.35 * ripple)


def _court(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """Markings of a sports floor (uv 0..1 over the floor)."""
    v, u = _coordinates()
    image = _planks(a, shade(a, 0.85), rng)
    x, y = np.abs(u - 0.5), np.abs(v - 0.5)
    line = (np.abs(x - 0.4) < 0.012) & (y < 0.43) | (np.abs(y - 0.42) < 0.012) & (x < 0.41)
    line |= (y < 0.01) & (x < 0.4) | (np.abs(np.hypot(x, y) - 0.12) < 0.014)
    image[(x < 0.16) & (y > 0.22) & (y < 0.42)] = b
    image[line] = (240, 240, 236)
    return image


def _clouds(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A whole sky (uv 0..1): a at the zenith, b at the horizon, clouds between."""
    v, _ = _coordinates()
    cloud = smooth_noise(rng, (6, 3)) * 0.55 + smooth_noise(rng, (11, 6)) * 0.3 + smooth_noise(rng, (20, 14)) * 0.15
    image = _lerp(b, a, (v - 0.35) * 1.6)
    cover = np.clip((cloud - rng.uniform(0.45, 0.6)) * 4, 0, 1) * np.clip((v - 0.4) * 4, 0, 1)
    return image + (np.asarray(shade(b, 1.6)) - image) * cover[..., None]


def _stars(a: RGB, b: RGB, rng: np.random.Generator) -> np.ndarray:
    """A night sky (uv 0..1) with a moon."""
    v, u = _coordinates()
    image = _lerp(b, a, (v - 0.3) * 1.5)
    image[(rng.random((SIZE, SIZE)) > 0.985) & (v > 0.45)] = (230, 232, 240)
    image[np.hypot(u - rng.uniform(0.15, 0.85), v - rng.uniform(0.75, 0.9)) < 0.05] = (246, 240, 214)
    return image


TEXTURES: dict[str, Callable[[RGB, RGB, np.random.Generator], np.ndarray]] = {
    "wood": _wood, "planks": _planks, "tiles": _tiles, "checks": _checks, "stripes": _stripes, "plaid": _plaid,
    "dots": _dots, "floral": _floral, "motif": _motif, "brick": _brick, "stone": _stone, "marble": _marble,
    "noise": _noise, "carpet": _carpet, "weave": _weave, "persian": _persian, "border": _border, "leaves": _leaves,
    "books": _books, "facade": _facade, "view": _sky_picture, "picture": _picture, "screen": _screen,
    "clock": _clock, "sign": _sign, "goods": _goods, "lawn": _lawn, "waves": _waves, "court": _court,
    "clouds": _clouds, "stars": _stars,
}  # fmt: skip


def bitmap(material: Material) -> np.ndarray:
    """The texture as linear reflectance, (64, 64, 3) float32 in 0.01..0.92, row 0 at v = 0."""
    rng = np.random.default_rng((material.seed, zlib.crc32(material.texture.encode())))
    second = material.second or shade(material.colour, 0.72)
    image = TEXTURES[material.texture](material.colour, second, rng)
    return np.clip(to_linear(image), 0.01, 0.92).astype(np.float32)
