"""Opens user-provided image files: accepted formats, largest size, orientation and colour conversion."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from dmp_core.errors import InputError
from dmp_core.reading import read_file, regular_size, shown

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Accepted formats, by Pillow's names; no other decoder runs on the user's files."""
MOST_PIXELS = 89_478_485
"""Of one image; above this, Pillow itself warns of a decompression bomb."""
_FIX = "give a whole PNG, JPEG, WebP, BMP or TIFF file"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""Pillow's factor for the levels of PNGs with 1, 2 and 4 bits of grey."""


def open_rgb(source: str | Path | BinaryIO, name: str | Path, *, most_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """An image file, or a stream of its bytes, as RGB (H, W, 3), rotated by its EXIF orientation.

    16 bits are reduced to the upper 8, transparency is composed over white, of several frames the first is used;
    colour profiles are not applied. Raises one InputError, which starts with `name`, for anything that cannot be
    read or decoded, and for images of more than `most_pixels`.
    """
    stream = io.BytesIO(read_file(source)) if isinstance(source, str | Path) else source
    with decoding(name, "not a readable image", _FIX), opened(stream, most_pixels=most_pixels) as image:
        return _pixels(image)


def check_image(path: Path) -> None:
    """Raise InputError for errors that `open_rgb` would find in the file's entry and header; decodes no pixels."""
    regular_size(path)
    with path.open("rb") as stream, decoding(path, "not a readable image", _FIX), opened(stream):
        pass


def to_rgb(image: Image.Image, name: str | Path) -> NDArray[np.uint8]:
    """A Pillow image, converted as by `open_rgb`, with the same errors."""
    with decoding(name, "not a readable image", "give one of 8 or 16 bits per channel"):
        if image.width * image.height > MOST_PIXELS:
            raise InputError(f"{image.width} × {image.height} pixels, more than {MOST_PIXELS / 1e6:.0f} million")
        return _pixels(image)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    turn = _TURNS.get(orientation(image))
    rgb: NDArray[np.uint8] = np.array(_rgb(image if turn is None else image.transpose(turn)))
    return rgb


@contextmanager
def opened(
    stream: BinaryIO, formats: tuple[str, ...] = FORMATS, *, most_pixels: int = MOST_PIXELS
) -> Iterator[Image.Image]:
    """An image's header, pixels not decoded. Raises InputError without a name if it is too large; see `decoding`."""
    try:
        image = Image.open(stream, formats=formats)
    except Image.DecompressionBombError:
        raise InputError(f"more than {2 * MOST_PIXELS / 1e6:.0f} million pixels; scale it down") from None
    with image:
        if image.width * image.height > most_pixels:
            size = f"{image.width} × {image.height} pixels, more than {most_pixels / 1e6:.0f} million"
            raise InputError(f"{size}; scale it down")
        _scale_transparency(image)
        yield image


@contextmanager
def decoding(name: str | Path, what: str, fix: str) -> Iterator[None]:
    """Turn errors of decoding into one InputError line: `name`, the problem, the fix."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{shown(name)}: {error}") from None
    # Pillow and NumPy raise many kinds of errors for damaged files: struct.error, KeyError, zlib.error …
    except Exception as error:
        reason = " ".join(str(error).split(" <_io")[0].split(" '/")[0].split())[:200] or type(error).__name__
        raise InputError(f"{shown(name)}: {what} ({shown(reason)}); {fix}") from None


def orientation(image: Image.Image) -> int:
    """1 to 8, from EXIF or XMP; 1 if these cannot be read, as in every viewer.

    The EXIF data is never written again: other tools' entries may violate the standard.
    """
    try:
        # The base class's method: that of PNG would decode the whole file.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # damaged EXIF raises many kinds of errors; the pixels are not affected
        return 1


def raw_mode(image: Image.Image) -> str:
    """Pillow's name for the storage of a PNG's pixels (`L;2`: grey of 2 bits); empty for other formats."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0][3]) if image.format == "PNG" and tiles else ""


def _scale_transparency(image: Image.Image) -> None:
    """Scale a PNG's transparent level or colour: Pillow converts pixels to 8 bits, but not these."""
    clear, raw = image.info.get("transparency"), raw_mode(image)
    if raw in ("L;2", "L;4") and isinstance(clear, int):
        step = GREY_STEPS[raw]
        image.info["transparency"] = clear % (255 // step + 1) * step
    elif raw == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in clear)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip at 255
        levels, clear = np.asarray(image), image.info.get("transparency")
        grey = (levels.astype(np.float64).clip(0, 65535) / 257).round().astype(np.uint8)
        if clear is not None:
            grey = np.where(levels == clear, np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def resized(array: Array, size: tuple[int, int], method: Image.Resampling) -> Array:
    """(H, W[, 3]), uint8 or float, resized: uint8 stays uint8, other types become float32."""
    if array.dtype == np.uint8:
        return np.array(Image.fromarray(array).resize(size[::-1], method))
    planes = np.moveaxis(np.atleast_3d(array.astype(np.float32)), -1, 0)
    stacked = np.stack(
        [np.array(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], method)) for plane in planes], -1
    )
    return stacked if array.ndim == 3 else stacked[..., 0]


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """An RGB image, uint8 (H, W, 3), at `size` = (height, width), bilinear."""
    return image if image.shape[:2] == size else resized(image, size, Image.Resampling.BILINEAR)


def image_to_vae(images: Array) -> Tensor:
    """RGB images (B, H, W, 3) uint8 as input of the VAE: (B, 3, H, W) float32 in [-1, 1]."""
    import torch

    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"images: expected uint8 (B, H, W, 3), found {images.dtype} {images.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    return pixels.float() / 127.5 - 1
