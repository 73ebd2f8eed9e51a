"""What labels are in memory, and how an image is resized and turned into what the VAE encodes.

Labels, everywhere in this package, channels last:

    normal        (H, W, 3) float, unit vectors, axes right / up / toward the viewer; (0, 0, 0) = no surface
    depth         (H, W)    float, metres along the optical axis; not positive or not finite = no surface
    segmentation  (H, W)    uint8, class ids (ADE20K-150 order); 255 = no label
    albedo        (H, W, 3) [0, 1] float, or uint8 codes
    shading       (H, W)    [0, 1] float, or uint8 codes

and what `dmp_core.modalities` says of others; a `Modality` encodes, decodes, mirrors and resizes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.modalities.base import resized

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """An RGB image, uint8 (H, W, 3), at `size` = (height, width), bilinear."""
    return image if image.shape[:2] == size else resized(image, size, Image.Resampling.BILINEAR)


def image_to_vae(images: Array) -> Tensor:
    """RGB images (B, H, W, 3) uint8 as the VAE sees them: (B, 3, H, W) float32 in [-1, 1]."""
    import torch

    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"images: expected uint8 (B, H, W, 3), found {images.dtype} {images.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    return pixels.float() / 127.5 - 1
