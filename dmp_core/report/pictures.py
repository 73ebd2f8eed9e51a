"""Renders label arrays as RGB images: false colours, error maps, contact sheets.

Arrays are those of one image in the dataset's units, as their modality describes them. Channels-first arrays are
accepted as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.modalities import Modality, modality_of
from dmp_core.modalities.pictures import apply_map, load_matplotlib, lookup

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

RGB = NDArray[np.uint8]
"""An RGB image: (H, W, 3) uint8."""

ERROR_MAP = "inferno"


def css_gradient(name: str, stops: int = 12) -> str:
    """A matplotlib colour map as a CSS gradient, for colour bars."""
    colours = lookup(name)[np.linspace(0, 255, stops).astype(int)]
    return f"linear-gradient(90deg, {', '.join(f'#{r:02x}{g:02x}{b:02x}' for r, g, b in colours)})"


# ------------------------------------------------------------------------------------ error maps
def error_map(modality: Modality | str, pred: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Per-pixel error (H, W) in the unit of the modality's `error_scale`; NaN where the label is invalid."""
    modality = modality_of(modality)
    p, t = modality.image_channels_last(pred), modality.image_channels_last(true)
    if p.shape != t.shape:
        raise InputError(f"{modality.name}: prediction {p.shape} and label {t.shape} differ in shape")
    return modality.error_map(p, t)


def colourise_error(modality: Modality | str, pred: NDArray[Any], true: NDArray[Any]) -> RGB:
    """The error map in false colours, saturating at the maximum of the modality's `error_scale`: (H, W, 3) uint8."""
    modality = modality_of(modality)
    return apply_map(error_map(modality, pred, true) / modality.error_scale.maximum, ERROR_MAP)


# -------------------------------------------------------------------------------- contact sheets
def enlarge(image: RGB, size: int, *, crisp: bool = False) -> RGB:
    """Scale so that the longer side is `size` pixels; `crisp` keeps hard edges (class maps)."""
    from PIL import Image

    height, width = image.shape[:2]
    factor = size / max(height, width)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    if target == (width, height):
        return image
    method = Image.Resampling.NEAREST if crisp else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(target, method))


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
    """A grid of images with column heads, and row labels set upright on the left, small enough to fit.

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


def _is_flat(image: RGB) -> bool:
    """True for class maps: few colours, so resampling must not invent any."""
    codes = image.reshape(-1, 3).astype(np.int32) @ np.array([65536, 256, 1])
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
    """DejaVu Sans from matplotlib, so that figures look the same on every machine."""
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(load_matplotlib().get_data_path()) / "fonts" / "ttf" / name), size)
