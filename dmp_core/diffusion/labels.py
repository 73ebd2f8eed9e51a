"""Images and labels into the VAE and back; images are in [-1, 1] here, as in the networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmp_core.diffusion.latents import decode_latents, downscale_factor, encode_images, working_size
from dmp_core.diffusion.tiles import Tiles, tiled
from dmp_core.finite import check_outputs
from dmp_core.images import image_to_vae, resize_image
from dmp_core.modalities import Code, Modality, modality_of
from dmp_core.modalities.base import Classes

Array = NDArray[Any]


@torch.no_grad()
def encode(vae: Any, images: Tensor, batch_size: int = 16) -> Tensor:
    """Scaled latents of the posterior's mode, (N, c, h, w), on the CPU, in the VAE's dtype.

    images: (N, 3, H, W) in [-1, 1].
    """
    return torch.cat([encode_images(vae, batch / 2 + 0.5).cpu() for batch in images.split(batch_size)])


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W), nominally in [-1, 1]; not clamped: depth and shading need their channels' mean first."""
    return decode_latents(vae, latents).float() * 2 - 1


def working_images(vae: Any, images: Array, resolution: int | None) -> torch.Tensor:
    """Images uint8 (B, H, W, 3) at the networks' working size: (B, 3, h, w) in [-1, 1]."""
    size = working_size(images.shape[1:3], resolution, downscale_factor(vae))
    return image_to_vae(np.stack([resize_image(image, size) for image in images]))


def vae_ceiling(
    vae: Any,
    labels: Array,
    modality: Modality | str,
    *,
    code: Code | None = None,
    resolution: int | None = None,
    decoder: Any = None,
) -> Array:
    """Labels after the VAE's round trip: the score of a perfect U-Net (its upper bound).

    labels: a batch, channels last, as in `dmp_core.modalities`; returned in the same form and size. Classes are
        decoded among those of the image itself, so that no predictor knows more.
    decoder: what decodes latents instead of the VAE (`sampling.decoder`).
    """
    modality, labels = modality_of(modality), np.asarray(labels)
    code = replace(code or Code(), decoded_classes="seen")
    size = working_size(labels.shape[1:3], resolution, downscale_factor(vae))
    working = np.stack([modality.resize(label, size) for label in labels])
    pixels = modality.to_image(working, code)
    decoded = decode(vae if decoder is None else decoder, encode(vae, pixels, len(pixels)))
    check_outputs(decoded)
    parts = []
    for label, image in zip(labels, decoded.split(1), strict=True):
        parts.append(modality.from_image_at(image, label.shape[:2], code, classes=modality.classes_in(label)))
    return np.concatenate(parts)


def decode_labels(
    vae: Any,
    latents: torch.Tensor,
    modality: Modality,
    size: Sequence[int],
    code: Code,
    classes: Classes = None,
) -> Array:
    """Labels of `size` = (height, width), channels last, from the latents of label images (B, C, h, w).

    classes: see `Modality.from_image`.
    """
    return modality.from_image_at(decode(vae, latents), (size[0], size[1]), code, classes=classes)


def mirrored(label_images: NDArray[Any], modality: Modality | str, where: NDArray[np.bool_]) -> NDArray[Any]:
    """Label images (B, 3, H, W), those that `where` (B,) selects mirrored: of normals the x changes sign."""
    found = label_images.copy()
    found[where] = np.moveaxis(modality_of(modality).mirror_image(np.moveaxis(found[where], 1, -1)), -1, 1)
    return found


@dataclass(frozen=True)
class Predicted:
    """Predictions of a batch of images: what the networks made, and the labels, which are computed when first read."""

    decoded: Tensor
    """Label images (B, 3, h, w) as decoded, nominally in [-1, 1], all finite; on the CPU."""
    labels_of: Callable[[Tensor], Array]
    """From decoded label images to labels in the images' size, channels last."""
    error_map: Callable[[Array, Array], NDArray[np.float64]]
    latents: Tensor | None
    """Of the label images, (B, C, h', w'); None: they were made in tiles."""
    both: tuple[Tensor, Tensor] | None = None
    """Decoded from the mirrored image, and mirrored back, and from the image itself; None: not requested."""

    @cached_property
    def labels(self) -> Array:
        """(B, H, W[, 3]) in the units of the modality."""
        return self.labels_of(self.decoded)

    @cached_property
    def difference(self) -> NDArray[np.float64] | None:
        """Between the image's prediction and the mirrored image's, (B, H, W) in the unit of the modality's
        `error_scale`; None: not requested."""
        if self.both is None:
            return None
        return np.stack([self.error_map(*two) for two in zip(*map(self.labels_of, self.both), strict=True)])

    def each(self) -> list[Predicted]:
        """The same, image by image."""

        def row(batch: Tensor, number: int) -> Tensor:
            return batch[number : number + 1]

        return [
            replace(
                self,
                decoded=row(self.decoded, number),
                latents=None if self.latents is None else row(self.latents, number),
                both=None if self.both is None else (row(self.both[0], number), row(self.both[1], number)),
            )
            for number in range(len(self.decoded))
        ]


def predict_labels(
    vae: Any,
    latents_of: Callable[[Tensor], Tensor],
    images: Tensor,
    size: Sequence[int],
    modality: Modality,
    code: Code,
    *,
    classes: Classes = None,
    both_ways: bool = False,
    colour_noise: float | None = None,
    difference: bool = False,
    tiles: Tiles | None = None,
) -> Predicted:
    """The one way from images to labels of `size` = (height, width).

    vae: what decodes latents: the base model's VAE, or `sampling.decoder`.
    latents_of: the network, from images (B, 3, h, w) in [0, 1] to label latents (B, C, h', w').
    images: (B, 3, h, w) in [-1, 1], at the size at which the network works.
    classes, colour_noise: see `Modality.from_image`.
    both_ways: also predict the mirrored images and average; not for class maps, where the mean of two classes' colours
        may be a third one's.
    difference: also return how far the two are apart, for class maps too; this predicts the mirrored images as well.
    Raises `NotFinite`.
    """
    latents: list[Tensor] = []

    def network(part: Tensor) -> Tensor:
        latents.append(latents_of(part / 2 + 0.5))
        return decode(vae, latents[-1])

    def finite(decoded: Tensor) -> Tensor:
        check_outputs(decoded)
        return decoded.cpu()

    if tiles is not None:
        network = partial(tiled, network=network, tiles=tiles, choose=modality.has_classes)

    def labels_of(decoded: Tensor) -> Array:
        return modality.from_image_at(decoded, (size[0], size[1]), code, classes=classes, noise=colour_noise)

    decoded = own = finite(network(images))
    both, averaged = None, both_ways and not modality.has_classes
    if averaged or difference:
        other = finite(network(images.flip(-1))).numpy()
        back = torch.from_numpy(mirrored(other, modality, np.ones(len(other), dtype=np.bool_)))
        if averaged:
            decoded = (own + back) / 2
        if difference:
            both = back, own
    return Predicted(decoded, labels_of, modality.error_map, None if tiles else latents[0], both)
