"""Ground-truth labels of an image: from the renderer, or from files next to your own images.

The images stage stores the truth next to each image as `{key}.truth.npz`; the labels stage turns it into
one column per modality, so that adding a modality renders nothing again.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.modalities import Modality, modality_of
from dmp_core.modalities.files import npy_bytes
from dmp_core.store import read_npz

# The earliest time that a zip entry can have: without it the bytes would change with the clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_truth(rendered: Any, modalities: Iterable[Modality | str]) -> bytes:
    """The labels of one image as a compressed .npz; the same labels give the same bytes.

    rendered: an object with an attribute, or a mapping with a key, per modality; labels as in `Modality.encode`.
    modalities: those to pack.
    Raises InputError when one is missing or the shapes disagree.
    """
    arrays = {one.name: one.truth(_lookup(rendered, one.name)) for one in map(modality_of, modalities)}
    sizes = {name: array.shape[:2] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"truth: the labels of one image differ in size: {sizes}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, npy_bytes(array))
    return buffer.getvalue()


def unpack_truth(data: bytes, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The labels of one image by modality name, in the form of `Modality.truth`, ready to be encoded.

    names: those to read, if present; None: all.
    Raises InputError when the bytes are not a truth file.
    """
    try:
        return read_npz(data, names)
    except InputError as error:
        raise InputError(f"truth.npz: unreadable ({error}); run the images stage again") from None


def _lookup(rendered: Any, name: str) -> NDArray[Any]:
    value = rendered.get(name) if isinstance(rendered, Mapping) else getattr(rendered, name, None)
    if value is None:
        raise InputError(f"truth: no {name} among the labels of an image")
    return np.asarray(value)
