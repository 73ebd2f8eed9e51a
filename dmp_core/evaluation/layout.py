"""Array layouts: the dataset stores channels last, the metrics want channels first.

In the dataset's units a batch is: normal (N, H, W, 3) unit vectors in [-1, 1]; depth (N, H, W) metres;
segmentation (N, H, W) class ids; albedo (N, H, W, 3) and shading (N, H, W) in [0, 1].
Both layouts are accepted everywhere; images are at least 4 pixels wide, so a 3 names the channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import Task
from dmp_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

NUM_CLASSES = 150

_THREE_CHANNELS = ("normal", "albedo")


def channels_last(task: Task, array: NDArray[Any]) -> NDArray[Any]:
    """A batch as (N, H, W, 3) for normal and albedo, as (N, H, W) for the other tasks.

    Raises InputError when the shape fits neither layout.
    """
    array = np.asarray(array)
    if task in _THREE_CHANNELS:
        if array.ndim == 4 and array.shape[-1] == 3:
            return array
        if array.ndim == 4 and array.shape[1] == 3:
            return np.moveaxis(array, 1, -1)
        raise InputError(f"{task}: expected images (H, W, 3), found shape {array.shape[1:]}")
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim != 3:
        raise InputError(f"{task}: expected images (H, W), found shape {array.shape[1:]}")
    return array


def image_channels_last(task: Task, array: NDArray[Any]) -> NDArray[Any]:
    """The same for one image: (H, W, 3) or (H, W)."""
    return channels_last(task, np.asarray(array)[None])[0]


def metric_tensor(task: Task, array: NDArray[Any]) -> Tensor:
    """A batch as the metrics want it: float64, (N, H, W) for depth, (N, C, H, W) otherwise."""
    import torch

    array = channels_last(task, array).astype(np.float64)
    if task in _THREE_CHANNELS:
        array = np.moveaxis(array, -1, 1)
    elif task != "depth":
        array = array[:, None]
    return torch.from_numpy(np.ascontiguousarray(array))
