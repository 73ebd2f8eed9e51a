"""Colour codes of segmentation classes: a class map as an RGB image that a VAE can encode, and back."""

from __future__ import annotations

import colorsys
import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.resources import manifest_path

IGNORED = 255
"""Class id of pixels without a label; they are painted black."""

DMP_CLASSES: tuple[int, ...] = (
    *(0, 3, 5, 7, 8, 10, 14, 15, 17, 18, 19, 22, 27, 28, 30, 36, 39, 41, 44, 57),
    *(66, 67, 82, 85, 97, 125, 131, 134, 135),
)
"""The 29 bedroom classes that the paper keeps."""

Space = Literal["rgb", "lab8"]
Ids = NDArray[np.integer[Any]]
RGB = NDArray[np.uint8]

_CHUNK = 1 << 16
_MOST_DISTANCES = 1 << 25


@dataclass(frozen=True, eq=False)
class Palette:
    """One colour per class: colours (K, 3) uint8 RGB, row = class id; K = 150 in the shipped ones.

    Shipped in ``data_manifests/palettes/``: ``default`` (ours, every colour decodable), ``dmp2`` (the
    paper's) and ``ade20k``. In the last two classes 6 and 48 share one colour, and in 8-bit Lab 50 and 51.
    """

    name: str
    colours: RGB
    classes: tuple[str, ...] = ()
    ignored: int = IGNORED
    """Id of pixels without a label."""

    def encode(self, ids: Ids) -> RGB:
        """Class ids (…) to colours (…, 3). `ignored` becomes black. Raises InputError on other ids without a colour."""
        ids = np.asarray(ids)
        if not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"ids: {ids.dtype}; expected integer class ids")
        bad = (ids != self.ignored) & ((ids < 0) | (ids >= len(self.colours)))
        if bad.any():
            raise InputError(
                f"ids: {ids[bad].flat[0]} has no colour in palette {self.name!r}; expected 0 … "
                f"{len(self.colours) - 1}, or {self.ignored} for no label"
            )
        table = np.zeros((max(self.ignored + 1, len(self.colours)), 3), dtype=np.uint8)
        table[: len(self.colours)] = self.colours
        if self.ignored < len(self.colours):
            table[self.ignored] = 0
        return table[ids]

    def decode(self, rgb: RGB, classes: Iterable[int] | None = None, space: Space = "rgb") -> NDArray[Any]:
        """The class whose colour is nearest, lowest id on a tie. (…, 3) uint8 -> ids (…).

        classes: ids to choose among (all). space: distances in RGB, or "lab8", OpenCV's 8-bit Lab
        as published. Raises InputError on floats or unknown ids.
        """
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim < 1 or rgb.shape[-1] != 3:
            raise InputError(f"rgb: {rgb.dtype} {rgb.shape}; expected uint8 (…, 3)")
        kept = np.arange(len(self.colours)) if classes is None else self._checked(classes)
        if space not in ("rgb", "lab8"):
            raise InputError(f"space: {space!r}; choose 'rgb' or 'lab8'")
        points, centres = rgb.reshape(-1, 3), self.colours[kept]
        if space == "lab8":
            points, centres = rgb_to_lab8(points), rgb_to_lab8(centres)
        nearest = _nearest(points, centres)
        return kept[nearest].astype(self._dtype).reshape(rgb.shape[:-1])

    def likeliest(self, rgb: RGB, shares: Mapping[int, float], noise: float) -> NDArray[Any]:
        """The class that is likeliest by its colour and by its share. (…, 3) uint8 -> ids (…).

        shares: class id -> its share of all pixels, above 0; ids to choose among.
        noise: the standard deviation of a channel from the class's colour, as a fraction of the channel's range: the
            logarithm of a class's likelihood is ln(share) - |rgb - colour|² / (2 · (255 · noise)²).
        Raises InputError on unknown ids.
        """
        kept = self._checked(shares)
        handicap = -2 * (255 * noise) ** 2 * np.log([shares[name] for name in kept.tolist()])
        nearest = _nearest(rgb.reshape(-1, 3), self.colours[kept], handicap.astype(np.float32))
        return kept[nearest].astype(self._dtype).reshape(rgb.shape[:-1])

    @property
    def _dtype(self) -> type[np.unsignedinteger[Any]]:
        return id_type(len(self.colours), self.ignored)

    def others_black(self, classes: Iterable[int] = DMP_CLASSES) -> Palette:
        """The published filter, for ``dmp_compat``: every class outside ``classes`` becomes black.

        Decoding then still chooses among all rows, so black decodes to the first excluded class.
        """
        kept = self._checked(classes)
        colours = np.zeros_like(self.colours)
        colours[kept] = self.colours[kept]
        return Palette(f"{self.name}, others black", colours, self.classes)

    def _checked(self, classes: Iterable[int]) -> NDArray[np.int64]:
        kept = np.array(sorted(set(classes)), dtype=np.int64)
        if kept.size == 0 or kept[0] < 0 or kept[-1] >= len(self.colours):
            raise InputError(f"classes: {kept.tolist()}; give ids within 0 … {len(self.colours) - 1}")
        return kept


def id_type(classes: int, ignored: int) -> type[np.unsignedinteger[Any]]:
    """The integer type for the ids of this many classes and the id of no label."""
    return np.uint8 if max(classes - 1, ignored) < 256 else np.uint16


@cache
def load_palette(name: str = "default") -> Palette:
    """A palette by its name in ``data_manifests/palettes/``, or by the path of a CSV with columns
    id, class, r, g, b. Raises InputError naming file and row."""
    path = Path(name)
    if path.suffix != ".csv":
        try:
            path = manifest_path("palettes", f"{name}.csv")
        except FileNotFoundError:
            known = sorted(file.stem for file in manifest_path("palettes").glob("*.csv"))
            raise InputError(f"palette: {name!r} does not exist; choose {', '.join(known)}, or a CSV file") from None
    return read_palette(path)


def read_palette(path: str | Path) -> Palette:
    """A palette from a CSV file with columns id, class, r, g, b; ids 0, 1, 2 … in order."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such palette")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    colours, classes = [], []
    for number, row in enumerate(rows):
        try:
            entry, colour = int(row["id"]), [int(row[channel]) for channel in "rgb"]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}, row {number + 2}: expected the columns id, class, r, g, b in numbers") from None
        if entry != number or not all(0 <= value <= 255 for value in colour):
            raise InputError(f"{path}, row {number + 2}: expected id {number} and colours in 0 … 255, found {row}")
        colours.append(colour)
        classes.append(row.get("class") or "")
    if not 1 <= len(rows) <= IGNORED:
        raise InputError(f"{path}: {len(rows)} classes; expected 1 to {IGNORED}")
    return Palette(path.stem, np.array(colours, dtype=np.uint8), tuple(classes))


def _nearest(points: RGB, centres: RGB, handicap: NDArray[np.float32] | float = 0) -> NDArray[np.int64]:
    """Index of the nearest centre, the first on a tie. Exact: all terms are integers below 2²⁴.

    handicap: added to the squared distances to each centre.
    """
    c = centres.astype(np.float32)
    square = (c**2).sum(1) + handicap
    rows = max(1, min(_CHUNK, _MOST_DISTANCES // len(centres)))
    chunks = (points[start : start + rows].astype(np.float32) for start in range(0, len(points), rows))
    found = [(square - 2 * chunk @ c.T).argmin(1) for chunk in chunks]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


# ------------------------------------------------------------------------------------- Lab
def rgb_to_lab8(rgb: RGB) -> RGB:
    """8-bit CIE Lab of 8-bit sRGB, (…, 3), bit for bit as OpenCV's COLOR_RGB2Lab.

    L in 0 … 255 represents 0 … 100; a and b are shifted by 128. OpenCV works in fixed point:
    linear light with 3 extra bits, XYZ weights with 12, cube roots with 15.
    """
    linear, cube_root = _lab_tables()
    weights = np.array(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    ) / np.array([[0.950456], [1.0], [1.088754]])
    xyz = linear[rgb] @ np.rint(weights * (1 << 12)).astype(np.int64).T
    fx, fy, fz = np.moveaxis(cube_root[_descale(xyz, 12)], -1, 0)
    lightness = _descale(((116 * 255 + 50) // 100) * fy - ((16 * 255 * (1 << 15) + 50) // 100), 15)
    a = _descale(500 * (fx - fy) + (128 << 15), 15)
    b = _descale(200 * (fy - fz) + (128 << 15), 15)
    return np.stack([lightness, a, b], axis=-1).clip(0, 255).astype(np.uint8)


@cache
def _lab_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """sRGB code -> linear light · 255 · 8, and that value -> f(t) · 2¹⁵ with Lab's f, t = light / (255 · 8)."""
    code = np.arange(256) / 255
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    t = np.arange(256 * 3 // 2 * 8) / (255 * 8)
    root = np.where(t < 0.008856, t * 7.787 + 16 / 116, np.cbrt(t))
    return np.rint(linear * 255 * 8).astype(np.int64), np.rint(root * (1 << 15)).astype(np.int64)


def _descale(value: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return (value + (1 << (bits - 1))) >> bits


# -------------------------------------------------------------------------- our own palette
def spread_colours(count: int) -> RGB:
    """``count`` colours, up to 188, well separated from each other and from black: (count, 3).

    From coarse to fine: corners, middles of edges and faces, and the centre of the RGB cube (127 apart),
    then centres of its eighths (110), the 5-level lattice (63), centres of its cells (55). Within a
    lattice the colour farthest from all earlier ones comes first.
    """
    level = np.rint(np.linspace(0, 255, 9)).astype(np.int64)
    chosen = [np.zeros(3, dtype=np.int64)]
    for levels in (level[::4], level[2::4], level[::2], level[1::2]):
        lattice = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
        distance = np.min([((lattice - colour) ** 2).sum(1) for colour in chosen], axis=0)
        while distance.any() and len(chosen) <= count:
            chosen.append(lattice[int(distance.argmax())])
            distance = np.minimum(distance, ((lattice - chosen[-1]) ** 2).sum(1))
    if len(chosen) <= count:
        raise InputError(f"count: {count} colours; at most {len(chosen) - 1} are well separated")
    return np.array(chosen[1:], dtype=np.uint8)


def class_colours(count: int) -> RGB:
    """Colours of `count` classes, none black: the best separated ones, or, above 188, an even lattice."""
    if count <= 188:
        return spread_colours(count)
    levels = math.ceil((count + 1) ** (1 / 3))
    steps = np.rint(np.linspace(0, 255, levels)).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return lattice[1 : count + 1]


@cache
def display_colours(classes: int) -> RGB:
    """Display colours of classes: distinct hues by the golden angle, alternating in lightness; (classes, 3)."""
    colours = []
    for index in range(classes):
        lightness = (0.62, 0.42, 0.76, 0.52)[index % 4]
        r, g, b = colorsys.hls_to_rgb((index * 0.61803398875 + 0.58) % 1.0, lightness, 0.55)
        colours.append((round(r * 255), round(g * 255), round(b * 255)))
    return np.array(colours, dtype=np.uint8)
