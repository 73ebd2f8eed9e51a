"""From label arrays to pictures: false colours, error maps, contact sheets.

Arrays are those of one image in the dataset's units: normal (H, W, 3) unit vectors in [-1, 1]; depth
(H, W) metres; segmentation (H, W) class ids; albedo (H, W, 3) and shading (H, W) in [0, 1].
Channels-first arrays are accepted as well.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import TASKS, Task
from dmp_core.errors import InputError
from dmp_core.evaluation.colours import IGNORED
from dmp_core.evaluation.layout import image_channels_last
from dmp_core.report.extra import load_matplotlib
from dmp_core.resources import manifest_path

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

RGB = NDArray[np.uint8]
"""A picture: (H, W, 3) uint8."""

UNKNOWN_COLOUR = (128, 128, 128)
"""Pixels without a value: invalid depth, ignored class."""

DEPTH_MAP = "turbo"
ERROR_MAP = "inferno"


@dataclass(frozen=True)
class ErrorScale:
    """What an error map shows, and the error at which its colour saturates."""

    label: str
    maximum: float
    unit: str = ""
    two_valued: bool = False

    @property
    def range_text(self) -> str:
        return "right or wrong" if self.two_valued else f"0 – {self.maximum:g}{self.unit}"


ERROR_SCALES: dict[str, ErrorScale] = {
    "normal": ErrorScale("angle between the normals", 60.0, "°"),
    "depth": ErrorScale("relative depth error", 50.0, " %"),
    "segmentation": ErrorScale("wrong class", 1.0, two_valued=True),
    "albedo": ErrorScale("absolute difference, mean of the channels", 0.3),
    "shading": ErrorScale("absolute difference", 0.3),
}


# --------------------------------------------------------------------------------- false colours
@cache
def _lookup(name: str) -> NDArray[np.uint8]:
    """256 colours of a matplotlib map, (256, 3) uint8."""
    return np.asarray(np.round(load_matplotlib().colormaps[name](np.arange(256))[:, :3] * 255), dtype=np.uint8)


def apply_map(values: NDArray[np.floating], name: str) -> RGB:
    """Colour (H, W) values of [0, 1] (clipped); values that are not finite come out grey."""
    finite = np.isfinite(values)
    index = np.round(np.clip(np.where(finite, values, 0.0), 0.0, 1.0) * 255).astype(np.uint8)
    picture = _lookup(name)[index]
    picture[~finite] = UNKNOWN_COLOUR
    return picture


def css_gradient(name: str, stops: int = 12) -> str:
    """The same map as a CSS gradient, for colour bars."""
    colours = _lookup(name)[np.linspace(0, 255, stops).astype(int)]
    return f"linear-gradient(90deg, {', '.join(f'#{r:02x}{g:02x}{b:02x}' for r, g, b in colours)})"


@cache
def class_names() -> tuple[str, ...]:
    """Names of the 150 ADE20K classes, in the order of their ids."""
    text = manifest_path("ade20k_classes.txt").read_text()
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


@cache
def _display_colours(classes: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct hues by the golden angle, alternating in lightness; calm enough to look at."""
    colours = []
    for index in range(classes):
        lightness = (0.62, 0.42, 0.76, 0.52)[index % 4]
        r, g, b = colorsys.hls_to_rgb((index * 0.61803398875 + 0.58) % 1.0, lightness, 0.55)
        colours.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colours)


def display_palette(classes: int = 150) -> NDArray[np.uint8]:
    """Colours to show classes in when no palette is given: (classes, 3) uint8."""
    return np.array(_display_colours(classes), dtype=np.uint8)


def depth_range(depths: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """A range for showing several depth maps alike: 1st to 99th percentile of the valid metres.

    The far end stays within four medians, so that a patch of sky does not flatten all the rest.
    """
    valid = [d[np.isfinite(d) & (d > 0)].astype(np.float64) for d in map(np.asarray, depths)]
    values = np.concatenate(valid) if valid else np.empty(0)
    if values.size == 0:
        return 0.0, 1.0
    near, middle, far = np.quantile(values, [0.01, 0.5, 0.99])
    return float(near), float(max(min(far, 4 * middle), near + 1e-3))


def colourise(
    task: Task,
    array: NDArray[Any],
    *,
    palette: NDArray[np.uint8] | None = None,
    metres: tuple[float, float] | None = None,
) -> RGB:
    """Show one label or prediction: (H, W, 3) uint8.

    normal: (n + 1) / 2. depth: turbo, near blue to far red, over `metres` (default: the array's own
    range). segmentation: `palette` (K, 3), default `display_palette()`. albedo, shading: as they are.
    Raises InputError for an unknown task or a shape that does not fit.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r} is unknown; choose one of: {', '.join(TASKS)}")
    array = image_channels_last(task, array)
    if task == "segmentation":
        return _colour_classes(array, display_palette() if palette is None else np.asarray(palette))
    if task == "depth":
        near, far = metres or depth_range([array])
        valid = np.isfinite(array) & (array > 0)
        return apply_map(np.where(valid, (array.astype(np.float64) - near) / (far - near), np.nan), DEPTH_MAP)
    unit = (array.astype(np.float64) + 1) / 2 if task == "normal" else array.astype(np.float64)
    picture = np.round(np.clip(np.nan_to_num(unit, nan=0.5), 0, 1) * 255).astype(np.uint8)
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)


def _colour_classes(ids: NDArray[Any], palette: NDArray[np.uint8]) -> RGB:
    known = (ids >= 0) & (ids < len(palette)) & (ids != IGNORED)
    picture = palette[np.where(known, ids, 0).astype(np.int64)].astype(np.uint8)
    picture[~known] = UNKNOWN_COLOUR
    return picture


# ------------------------------------------------------------------------------------ error maps
def error_map(task: Task, pred: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Per-pixel error (H, W) in the unit of `ERROR_SCALES[task]`; NaN where the label is invalid."""
    p, t = image_channels_last(task, pred), image_channels_last(task, true)
    if p.shape != t.shape:
        raise InputError(f"{task}: prediction {p.shape} and label {t.shape} differ in shape")
    if task == "segmentation":
        return np.where((t == IGNORED) | (t < 0), np.nan, (p != t).astype(np.float64))
    p, t = p.astype(np.float64), t.astype(np.float64)
    if task == "normal":
        return _angle(p, t)
    if task == "depth":
        valid = np.isfinite(t) & (t > 0)
        return np.where(valid, 100 * np.abs(p - t) / np.where(valid, t, 1.0), np.nan)
    difference = np.abs(p - t)
    return np.asarray(difference.mean(axis=-1) if task == "albedo" else difference)


def _angle(p: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(p, axis=-1) * np.linalg.norm(t, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.sum(p * t, axis=-1) / lengths
    return np.where(lengths > 1e-6, np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.nan)


def colourise_error(task: Task, pred: NDArray[Any], true: NDArray[Any]) -> RGB:
    """The error map in false colours, saturating at `ERROR_SCALES[task].maximum`: (H, W, 3) uint8."""
    return apply_map(error_map(task, pred, true) / ERROR_SCALES[task].maximum, ERROR_MAP)


# -------------------------------------------------------------------------------- contact sheets
def enlarge(picture: RGB, size: int, *, crisp: bool = False) -> RGB:
    """Scale so that the longer side is `size` pixels; `crisp` keeps hard edges (class maps)."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = size / max(height, width)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    if target == (width, height):
        return picture
    method = Image.Resampling.NEAREST if crisp else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize(target, method))


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet; a None cell stays empty, `gap_above` sets groups apart."""

    cells: Sequence[RGB | None]
    label: str = ""
    gap_above: bool = False


@dataclass(frozen=True)
class SheetStyle:
    """Sizes in pixels and colours of a contact sheet."""

    cell: int = 128
    gap: int = 4
    group_gap: int = 14
    font_size: int = 15
    background: tuple[int, int, int] = (255, 255, 255)
    ink: tuple[int, int, int] = (32, 36, 44)
    faint: tuple[int, int, int] = (104, 112, 124)


def contact_sheet(
    rows: Sequence[SheetRow],
    headers: Sequence[str] = (),
    *,
    groups: Sequence[tuple[str, int]] = (),
    style: SheetStyle | None = None,
) -> Image.Image:
    """A grid of pictures with column heads, and row labels set upright on the left, small enough to fit.

    headers: one per column. groups: (title, number of columns) from left to right, printed above the
    heads and set apart by a wider gap. Cells are scaled to `style.cell` on their longer side.
    Raises InputError when there are no rows, or their lengths differ.
    """
    from PIL import Image, ImageDraw

    style = style or SheetStyle()
    columns = {len(row.cells) for row in rows}
    if len(columns) != 1:
        raise InputError(f"contact_sheet: rows must have the same number of cells (found {sorted(columns)})")
    lefts = _column_positions(columns.pop(), [n for _, n in groups], style)
    tops = _row_positions(rows, bool(headers) + bool(groups), style)
    width, height = lefts[-1] + style.cell + style.gap, tops[-1] + style.cell + style.gap
    sheet = Image.new("RGB", (width, height), style.background)
    draw = ImageDraw.Draw(sheet)
    _draw_heads(draw, headers, groups, lefts, style)
    for row, top in zip(rows, tops, strict=True):
        for cell, left in zip(row.cells, lefts, strict=True):
            if cell is not None:
                sheet.paste(Image.fromarray(enlarge(cell, style.cell, crisp=_is_flat(cell))), (left, top))
        _draw_upright(sheet, row.label, top, style)
    return sheet


def _is_flat(picture: RGB) -> bool:
    """True for class maps: few colours, so resampling must not invent any."""
    codes = picture.reshape(-1, 3).astype(np.int32) @ np.array([65536, 256, 1])
    return len(np.unique(codes)) <= 64


def _column_positions(columns: int, groups: Sequence[int], style: SheetStyle) -> list[int]:
    starts = set(np.cumsum(groups).tolist()) if groups else set()
    left, positions = style.font_size + 2 * style.gap, []
    for column in range(columns):
        left += style.group_gap - style.gap if column in starts else 0
        positions.append(left)
        left += style.cell + style.gap
    return positions


def _row_positions(rows: Sequence[SheetRow], head_lines: int, style: SheetStyle) -> list[int]:
    top, positions = style.gap + head_lines * round(style.font_size * 1.6), []
    for index, row in enumerate(rows):
        top += style.group_gap - style.gap if row.gap_above and index else 0
        positions.append(top)
        top += style.cell + style.gap
    return positions


def _draw_heads(
    draw: ImageDraw.ImageDraw,
    headers: Sequence[str],
    groups: Sequence[tuple[str, int]],
    lefts: Sequence[int],
    style: SheetStyle,
) -> None:
    line, top, column = round(style.font_size * 1.6), style.gap, 0
    for title, span in groups:
        middle = (lefts[column] + lefts[column + span - 1] + style.cell) / 2
        draw.text((middle, top), title, style.ink, font(style.font_size, bold=True), anchor="ma")
        column += span
    top += line if groups else 0
    for header, left in zip(headers, lefts, strict=False):
        colour = style.faint if groups else style.ink
        draw.text((left + style.cell / 2, top), header, colour, font(style.font_size), anchor="ma")


def _draw_upright(sheet: Image.Image, text: str, top: int, style: SheetStyle) -> None:
    from PIL import Image, ImageDraw

    if not text:
        return
    size = style.font_size
    while size > 1 and font(size).getlength(text) > style.cell:
        size -= 1
    strip = Image.new("RGB", (style.cell, round(style.font_size * 1.4)), style.background)
    ImageDraw.Draw(strip).text((style.cell / 2, 0), text, style.ink, font(size), anchor="ma")
    sheet.paste(strip.rotate(90, expand=True), (style.gap // 2, top))


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, so that figures look alike on every machine."""
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(load_matplotlib().get_data_path()) / "fonts" / "ttf" / name), size)
