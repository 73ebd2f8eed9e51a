"""Labels as the bytes of files: deterministic PNG and .npy."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dmp_core.errors import InputError
from dmp_core.store import read_npy

# zlib's output depends on it, and shards must be byte-identical.
_PNG_LEVEL = ContextVar("_PNG_LEVEL", default=6)


@contextmanager
def quick_png() -> Iterator[None]:
    """Inside, PNGs take a fourth of the time and a third more bytes; for files that need not be byte-identical."""
    token = _PNG_LEVEL.set(1)
    try:
        yield
    finally:
        _PNG_LEVEL.reset(token)


def png_bytes(image: NDArray[Any]) -> bytes:
    """Deterministic PNG of a uint8 image (H, W) or (H, W, 3), or of uint16 ids (H, W)."""
    image = np.ascontiguousarray(image)
    wide = image.dtype == np.uint16 and image.ndim == 2
    if not wide and (image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,))):
        raise InputError(f"png: expected uint8 (H, W) or (H, W, 3), found {image.dtype} {image.shape}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_PNG_LEVEL.get())
    return buffer.getvalue()


def png16_bytes(codes: NDArray[np.uint16], unit: str, scale: float, offset: float = 0.0) -> bytes:
    """Grey PNG of 16 bits (H, W) that states its meaning as text: value = offset + scale × code, code 0: no value."""
    text = PngInfo()
    for key, value in (("unit", unit), ("scale", f"{scale:.9g}"), ("offset", f"{offset:.9g}"), ("no value", "0")):
        text.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(codes)).save(buffer, "PNG", compress_level=_PNG_LEVEL.get(), pnginfo=text)
    return buffer.getvalue()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """A plain .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_floats(data: bytes, name: str, unit: str) -> NDArray[Any]:
    """Floats of a .npy file; raises InputError."""
    try:
        loaded = read_npy(data)
    except InputError as error:
        raise InputError(f"{name}: {error}; write float16 {unit} with numpy.save") from None
    if not np.issubdtype(loaded.dtype, np.floating):
        raise InputError(f"{name}: expected {unit} as floats in the .npy file, found {loaded.dtype}")
    return loaded
