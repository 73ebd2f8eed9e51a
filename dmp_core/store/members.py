"""Safe decoding of a shard's members: no code is run, and every size is checked before it is used.

A shard may come from anywhere. The end of a member's name selects its decoder; nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.errors import InputError

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
"""Of one image; Pillow's own limit is twice as high."""


def decode_member(extension: str, data: bytes) -> Any:
    """PNG and JPEG to a PIL image, `.npy` to an array, `.json` to a dict, anything else as bytes.

    Raises InputError when the bytes do not match the name, or claim an absurd size.
    """
    suffix = extension.rsplit(".", 1)[-1]
    if suffix in ("png", "jpg", "jpeg"):
        return open_image(data)
    if suffix == "npy":
        return read_npy(data)
    try:
        return json.loads(data) if suffix == "json" else data
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({str(error) or type(error).__name__})") from None


def open_image(data: bytes, formats: tuple[str, ...] = ("PNG", "JPEG")) -> Image.Image:
    """A decoded image; only the decoders of these formats run. Raises InputError."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > MOST_PIXELS:
            raise InputError(f"{image.width} × {image.height} pixels; the most is {MOST_PIXELS / 1e6:.0f} million")
        image.load()
    except InputError:
        raise
    except (
        Exception
    ) as error:  # damaged files raise about ten kinds, struct.error and DecompressionBombError among them
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise InputError(f"not a readable {' or '.join(formats)} image ({reason})") from None
    return image


def read_npy(data: bytes) -> NDArray[Any]:
    """The array of a `.npy` file whose size matches its header. Raises InputError."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](stream)
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or claimed != len(data) - stream.tell():
            raise ValueError(f"{dtype} {shape} in {len(data)} bytes")
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python
        raise InputError(f"not a whole .npy file ({str(error) or type(error).__name__})") from None
    return array


def read_npz(data: bytes, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays with these names that a `.npz` file contains; names: None for all. Raises InputError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = [name.removesuffix(".npy") for name in archive.NameToInfo if name.endswith(".npy")]
            held = there if names is None else [name for name in names if name in there]
            return {name: read_npy(_inflated(archive.getinfo(f"{name}.npy"), archive)) for name in held}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"not a whole .npz file ({error})") from None


def _inflated(entry: zipfile.ZipInfo, archive: zipfile.ZipFile) -> bytes:
    """Never more bytes than the entry claims, which is checked first."""
    if entry.file_size > MOST_PIXELS * 8:
        raise ValueError(f"{entry.filename} claims {entry.file_size / 1e9:.1f} GB")
    return archive.read(entry)
