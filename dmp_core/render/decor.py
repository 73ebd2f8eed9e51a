"""Colour schemes: what a room looks like where the prompt leaves it open."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from dmp_core.render.materials import Material, mix, shade
from dmp_core.render.vocabulary import RGB, as_rgb, vocabulary


@dataclass(frozen=True)
class Palette:
    """Display colours by role, and the textures of the large surfaces."""

    wall: RGB
    floor: RGB
    ceiling: RGB
    wood: RGB
    fabric: RGB
    fabric2: RGB
    accent: RGB
    accent2: RGB
    metal: RGB
    white: RGB = (238.0, 236.0, 230.0)
    dark: RGB = (46.0, 44.0, 48.0)
    leaf: RGB = (62.0, 124.0, 58.0)
    wall_texture: str = "plain"
    floor_texture: str = "planks"


def hsv(hue: float, saturation: float, value: float) -> RGB:
    """Display colour from hue, saturation, value in 0..1; greens and purples are toned down to what paint does."""
    hue = hue % 1.0
    calm = max(1 - abs(hue - 0.35) / 0.12, 1 - abs(hue - 0.83) / 0.13, 0.0)
    saturation, value = saturation * (1 - 0.42 * calm), value * (1 - 0.14 * calm)
    return as_rgb(255.0 * c for c in colorsys.hsv_to_rgb(hue, saturation, value))


_WOODS = ((162, 110, 62), (188, 142, 88), (214, 174, 116), (104, 68, 44), (122, 64, 40), (78, 56, 42), (226, 214, 196))


@dataclass(frozen=True)
class _Scheme:
    """What a decor word draws from. hues: None is any; woods index `_WOODS`; repeats in walls and floors are odds."""

    hues: tuple[float, ...] | None
    saturation: tuple[float, float]
    value: tuple[float, float]
    woods: tuple[int, ...]
    walls: tuple[str, ...]
    floors: tuple[str, ...]


_SCHEMES = {
    "free": _Scheme(
        None,
        (0.35, 0.85),
        (0.5, 0.92),
        (0, 1, 2, 3, 4, 5, 6),
        ("plain", "plain", "plain", "plain", "plain", "stripes", "motif", "brick"),
        ("planks", "planks", "planks", "planks", "carpet", "tiles", "noise"),
    ),
    "modern": _Scheme(None, (0.3, 0.75), (0.35, 0.9), (0, 1, 3, 5), ("plain",), ("planks", "tiles", "noise")),
    "minimal": _Scheme(None, (0.05, 0.25), (0.7, 0.95), (1, 2, 6), ("plain",), ("planks", "noise")),
    "scandinavian": _Scheme((0.55, 0.1, 0.45, 0.95), (0.2, 0.5), (0.6, 0.92), (2, 1, 6), ("plain",), ("planks",)),
    "rustic": _Scheme(
        (0.02, 0.08, 0.28, 0.12), (0.4, 0.75), (0.4, 0.75), (0, 3, 4), ("plain", "stone", "brick"), ("planks",)
    ),
    "industrial": _Scheme((0.05, 0.58, 0.1), (0.3, 0.7), (0.3, 0.7), (3, 5), ("brick", "noise"), ("noise", "planks")),
    "classic": _Scheme(
        (0.98, 0.38, 0.6, 0.11), (0.5, 0.85), (0.4, 0.75), (3, 4), ("stripes", "motif", "plain"), ("planks", "carpet")
    ),
    "luxury": _Scheme(
        (0.12, 0.8, 0.45, 0.63), (0.5, 0.9), (0.35, 0.8), (3, 4), ("motif", "plain"), ("marble", "planks", "carpet")
    ),
    "bohemian": _Scheme(None, (0.65, 0.95), (0.6, 0.95), (0, 2), ("plain", "motif"), ("planks", "tiles")),
    "japanese": _Scheme((0.1, 0.3, 0.02), (0.2, 0.5), (0.5, 0.85), (2, 3), ("plain",), ("weave", "planks")),
    "midcentury": _Scheme((0.08, 0.5, 0.13, 0.33), (0.5, 0.8), (0.55, 0.9), (0, 3), ("plain", "motif"), ("planks",)),
    "coastal": _Scheme((0.55, 0.5, 0.12), (0.3, 0.65), (0.6, 0.95), (2, 6), ("plain", "stripes"), ("planks", "tiles")),
}


# Hues that people paint and weave with, roughly by how often: blues, warm earths, reds, teals, greens, pinks.
_HUES = (0.58, 0.6, 0.63, 0.55, 0.08, 0.1, 0.12, 0.14, 0.05, 0.0, 0.98, 0.5, 0.47, 0.3, 0.25, 0.93, 0.78)


def _natural_hue(rng: np.random.Generator) -> float:
    """A hue near one of the usual ones; one time in five any hue at all."""
    return float(rng.random() if rng.random() < 0.2 else _HUES[int(rng.integers(len(_HUES)))] + rng.normal(0, 0.025))


def _wall_colour(rng: np.random.Generator, hue: float, decor: str) -> RGB:
    """Mostly tinted, sometimes strong, sometimes near white: pale-only rooms all look alike."""
    draw = rng.random()
    if decor in ("minimal", "scandinavian") or draw < 0.22:
        return hsv(hue, rng.uniform(0.02, 0.1), rng.uniform(0.84, 0.94))
    if draw < 0.72:
        return hsv(hue, rng.uniform(0.15, 0.38), rng.uniform(0.68, 0.9))
    return hsv(hue, rng.uniform(0.42, 0.7), rng.uniform(0.42, 0.78))


def _floor_colour(rng: np.random.Generator, texture: str, wood: RGB, hue: float) -> RGB:
    if texture == "planks":
        return mix(wood, as_rgb(_WOODS[int(rng.integers(5))]), 0.6)
    if texture == "carpet":
        return hsv(hue, rng.uniform(0.15, 0.55), rng.uniform(0.4, 0.75))
    if texture == "tiles":
        return hsv(rng.random(), rng.uniform(0.03, 0.35), rng.uniform(0.55, 0.9))
    if texture == "marble":
        return hsv(rng.random(), rng.uniform(0.02, 0.15), rng.uniform(0.8, 0.92))
    return hsv(rng.uniform(0.05, 0.12), rng.uniform(0.05, 0.3), rng.uniform(0.4, 0.7))


def draw_palette(rng: np.random.Generator, decor: str | None) -> Palette:
    """A scheme of related hues: wall and fabrics near a base hue, accents opposite or beside it."""
    decor = decor if decor in _SCHEMES else "free"
    scheme = _SCHEMES[decor]
    base = (
        _natural_hue(rng)
        if scheme.hues is None
        else scheme.hues[int(rng.integers(len(scheme.hues)))] + rng.normal(0, 0.02)
    )
    accent = base + rng.choice([0.5, 0.42, 0.58, 0.33, 0.08, 0.0])
    wood = shade(as_rgb(_WOODS[scheme.woods[int(rng.integers(len(scheme.woods)))]]), rng.uniform(0.85, 1.1))
    wall_hue = base + rng.normal(0, 0.05) if rng.random() < 0.6 else rng.uniform(0.05, 0.16)
    wall_texture = scheme.walls[int(rng.integers(len(scheme.walls)))]
    floor_texture = scheme.floors[int(rng.integers(len(scheme.floors)))]
    sat, val = (lambda: rng.uniform(*scheme.saturation)), (lambda: rng.uniform(*scheme.value))
    wall = (176.0, 98.0, 74.0) if wall_texture == "brick" and rng.random() < 0.7 else _wall_colour(rng, wall_hue, decor)
    return Palette(
        wall=wall,
        floor=_floor_colour(rng, floor_texture, wood, base + 0.1),
        ceiling=mix(wall, (246.0, 244.0, 240.0), rng.uniform(0.7, 1.0)),
        wood=wood,
        fabric=hsv(base, sat(), val()),
        fabric2=hsv(base + rng.normal(0, 0.06), sat() * 0.5, rng.uniform(0.7, 0.93)),
        accent=hsv(accent, min(1.0, sat() * 1.15), val()),
        accent2=hsv(accent + rng.choice([0.1, -0.1, 0.3]), sat(), val()),
        metal=hsv(0.1, rng.choice([0.03, 0.5]), rng.uniform(0.45, 0.8)),
        wall_texture=wall_texture,
        floor_texture=floor_texture,
    )


def asked_material(colour: RGB | None, word: str | None, base: Material, own_colour: RGB | None = None) -> Material:
    """`base` changed by what the prompt says: the colour word wins over the material's own colour."""
    stuff = vocabulary().materials.get(word) if word else None
    texture, rgb, second = base.texture, base.colour, base.second
    if stuff is not None:
        texture, rgb = stuff.texture, stuff.colour or rgb
        second = None
    if colour is not None:
        rgb = colour
        # A second hue would pull the mean away from the colour that was asked for.
        second = shade(colour, 0.8) if max(colour) > 60 else shade(colour, 1.12)
        if stuff is not None and stuff.texture in ("stripes", "checks", "floral", "dots", "motif", "plaid"):
            second = mix(colour, (244.0, 240.0, 232.0), 0.75)
    elif second is None and texture in ("stripes", "checks", "floral", "dots", "plaid"):
        second = own_colour or (240.0, 234.0, 222.0)
    return Material(
        rgb, texture, second, base.period if stuff is None else PERIODS.get(texture, 1.0), base.emission, base.seed
    )


# Metres that one repeat of a texture covers, where the maker of the object has no wish of its own.
PERIODS = {
    "plain": 1.0, "wood": 0.8, "planks": 1.2, "tiles": 1.2, "checks": 1.4, "stripes": 0.8, "plaid": 0.6, "dots": 0.7,
    "floral": 0.8, "motif": 0.9, "brick": 1.2, "stone": 1.6, "marble": 1.8, "noise": 2.0, "carpet": 0.8, "weave": 0.7,
    "leaves": 0.5, "facade": 9.0, "lawn": 3.0, "waves": 6.0,
}  # fmt: skip
