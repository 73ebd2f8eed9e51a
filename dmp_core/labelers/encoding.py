"""Labels by the name of their modality: in memory, in a file, and as the VAE's input.

In memory, everywhere in this package, channels last:

    normal        (H, W, 3) float, unit vectors, axes right / up / toward the viewer; (0, 0, 0) = no surface
    depth         (H, W)    float, metres along the optical axis; not positive or not finite = no surface
    segmentation  (H, W)    uint8, class ids (ADE20K-150 order); 255 = no label
    albedo        (H, W, 3) [0, 1] float, or uint8 codes
    shading       (H, W)    [0, 1] float, or uint8 codes

and as `dmp_core.modalities` states for others. All functions take a modality or its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dmp_core.images import image_to_vae, resize_image
from dmp_core.modalities import BUILT_IN, Code, Modality, find_modality, modality_of
from dmp_core.modalities.base import Classes
from dmp_core.modalities.colour import unit
from dmp_core.modalities.files import npy_bytes, png_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LABEL_EXTENSIONS",
    "decode_label",
    "encode_label",
    "flip",
    "from_vae_image",
    "image_to_vae",
    "npy_bytes",
    "png_bytes",
    "resize",
    "resize_image",
    "to_vae_image",
    "unit",
]

Array = NDArray[Any]

LABEL_EXTENSIONS: dict[str, str] = {name: find_modality(name).member for name in BUILT_IN}
"""Member name of each built-in modality's label in a shard, after the sample's key."""


def encode_label(modality: Modality | str, array: Array) -> tuple[str, bytes]:
    """One label as a file of the dataset: (member, bytes); see `Modality.encode`."""
    modality = modality_of(modality)
    return modality.member, modality.encode(array)


def decode_label(modality: Modality | str, data: bytes) -> Array:
    """The inverse of `encode_label`; see `Modality.decode`."""
    return modality_of(modality).decode(data)


def flip(modality: Modality | str, label: Array) -> Array:
    """The label of the mirrored image; see `Modality.mirror`."""
    return modality_of(modality).mirror(label)


def resize(modality: Modality | str, label: Array, size: tuple[int, int]) -> Array:
    """One label (H, W[, 3]) at `size` = (height, width); see `Modality.resize`."""
    return modality_of(modality).resize(label, size)


def to_vae_image(modality: Modality | str, label: Array, *, depth_scale: float, palette: str = "default") -> Tensor:
    """A batch of labels as the images that the VAE encodes; see `Modality.to_image`."""
    return modality_of(modality).to_image(label, Code(depth_scale=depth_scale, palette=palette))


def from_vae_image(
    modality: Modality | str,
    image: Tensor,
    *,
    depth_scale: float,
    palette: str = "default",
    classes: Classes = None,
    colour_noise: float | None = None,
) -> Array:
    """The inverse: labels, channels last, from decoded images (B, 3, H, W); see `Modality.from_image`."""
    code = Code(depth_scale=depth_scale, palette=palette)
    return modality_of(modality).from_image(image, code, classes=classes, noise=colour_noise)
