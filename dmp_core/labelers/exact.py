"""Labels out of the truth that came with an image: from the renderer, or from files beside one's own images.

The images stage keeps the truth beside each image as `{key}.truth.npz`; the labels stage turns it into
one column a task, so that adding a task renders nothing again.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import TASKS, Task
from dmp_core.errors import InputError
from dmp_core.store import read_npz

# Half precision resolves a normal 8 times finer than the 8-bit file that it ends in.
TRUTH_TYPES: dict[Task, type[np.generic]] = {
    "normal": np.float16,
    "depth": np.float32,
    "segmentation": np.uint8,
    "albedo": np.uint8,
    "shading": np.uint8,
}
"""What the truth of each task is stored as."""

# The oldest time that a zip entry can hold: without it the bytes would change with the clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_truth(rendered: Any, tasks: Sequence[Task] = TASKS) -> bytes:
    """The labels of one image as a compressed .npz; the same labels give the same bytes.

    rendered: an object with an attribute, or a mapping with a key, for each task: normal (H, W, 3)
    unit vectors, depth (H, W) metres, segmentation (H, W) ids, albedo (H, W, 3) and shading (H, W)
    as uint8 codes or floats in [0, 1].
    tasks: those to pack.
    Raises InputError when a task is missing or the shapes disagree.
    """
    arrays = {task: _stored(task, _lookup(rendered, task)) for task in tasks}
    sizes = {task: array.shape[:2] for task, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"truth: the labels of one image differ in size: {sizes}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for task, array in arrays.items():
            entry = zipfile.ZipInfo(f"{task}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, _npy(array))
    return buffer.getvalue()


def unpack_truth(data: bytes) -> dict[Task, NDArray[Any]]:
    """The labels of one image by task, in the dtypes of `TRUTH_TYPES`, ready for `encode_label`.

    Raises InputError when the bytes are no truth file.
    """
    try:
        return read_npz(data, TASKS)
    except InputError as error:
        raise InputError(f"truth.npz: unreadable ({error}); run the images stage again") from None


def _lookup(rendered: Any, task: Task) -> NDArray[Any]:
    value = rendered.get(task) if isinstance(rendered, Mapping) else getattr(rendered, task, None)
    if value is None:
        raise InputError(f"truth: no {task} among the labels of an image")
    return np.asarray(value)


def _stored(task: Task, array: NDArray[Any]) -> NDArray[Any]:
    wanted = TRUTH_TYPES[task]
    if task in ("albedo", "shading") and np.issubdtype(array.dtype, np.floating):
        array = (array * 255).round().clip(0, 255)
    return np.ascontiguousarray(array, dtype=wanted)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
