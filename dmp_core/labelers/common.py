"""Shared by the labelers that run a network: checks of images and options, precision, batches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dmp_core.errors import InputError, NotFinite
from dmp_core.finite import check_outputs, is_finite

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precisions of matrix products, by the names of `labels.<modality>.dtype`; labels are always float32."""


def check_shape(images: Any) -> None:
    """Raise InputError unless images are a tensor (B, 3, H, W) that is not empty."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images: expected floats (B, 3, H, W), found {found}")


def check_images(images: Any) -> None:
    """Raise InputError unless images are floats (B, 3, H, W) in [0, 1]."""
    check_shape(images)
    if not images.is_floating_point():
        raise InputError(f"images: expected floats (B, 3, H, W), found {images.dtype}; divide 8-bit codes by 255")
    low, high = images.aminmax()
    # NaN fails both comparisons. Resizing may overshoot by a rounding error.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise InputError(f"images: values {low:.4g} … {high:.4g} leave 0 … 1; divide 8-bit codes by 255")


def check_options(dtype: str, batch_size: int = 1) -> None:
    """Raise InputError for an unknown precision or an empty batch."""
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} images at a time are too few; give 1 or more")


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype`, for networks with float32 weights."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def check_finite(maps: Tensor) -> None:
    """Raise `NotFinite` for NaN and infinity, which postprocessing would turn into plausible labels."""
    check_outputs(maps, "are the labeler's weights damaged, or is labels.<modality>.dtype too low a precision?")


def finite_maps(images: Tensor, dtype: torch.dtype, predict: Callable[[Tensor, torch.dtype], Tensor]) -> Tensor:
    """`predict(images, dtype)`, (B, …); images whose output is not finite are predicted once more, in float32.

    Raises `NotFinite` for the first one that has NaN or infinity again.
    """
    maps = predict(images, dtype)
    bad = [index for index, found in enumerate(maps) if not is_finite(found)]
    if bad:
        log.warning("%d of %d outputs hold NaN or infinity in %s; again in float32", len(bad), len(maps), dtype)
        maps = maps.float()
        for index in bad:
            maps[index] = predict(images[index : index + 1], torch.float32)[0]
    check_finite(maps)
    return maps


def in_parts(images: Tensor, batch_size: int, label: Callable[[Tensor], Tensor]) -> Tensor:
    """Labels of the images, `batch_size` at a time."""
    labels = []
    for start in range(0, len(images), batch_size):
        try:
            labels.append(label(images[start : start + batch_size]))
        except NotFinite as error:
            raise NotFinite(start + error.index, error.reason) from None
    return torch.cat(labels)
