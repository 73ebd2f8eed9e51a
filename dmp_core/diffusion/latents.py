"""Between images and latents: the VAE's two directions, and the meaning of decoded channels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dmp_core.errors import InputError

MAX_ASPECT = 32
"""Largest aspect ratio (longer / shorter side) of an image that is enlarged."""


def encode_images(vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Scaled latents of images, (B, C, h, w), in the VAE's dtype and on its device.

    images: (B, 3, H, W) in [0, 1]. The posterior's mode, so that the same image always gives the
    same latents; with a ``generator`` its sample (the published code samples, see eq. 2's x).
    """
    encoded = vae.encode((images * 2 - 1).to(vae.device, vae.dtype))
    if hasattr(encoded, "latents"):  # AutoencoderTiny has no posterior
        latents = encoded.latents
    else:
        posterior = encoded.latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
    shift, scale = _shift_scale(vae)
    scaled: Tensor = (latents - shift) * scale
    return scaled


class SharedLatents:
    """`encode_images` for several networks that read the same images: each batch is encoded once, and kept."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._known: dict[tuple[tuple[int, ...], bytes], Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) in [0, 1]."""
        values = images.detach().cpu().contiguous().numpy()
        key = values.shape, hashlib.sha256(values.data).digest()
        if key not in self._known:
            self._known[key] = encode_images(self._vae, images)
        return self._known[key]


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decoded images (B, 3, H, W), nominally in [0, 1] but not clamped: gradients pass everywhere."""
    shift, scale = _shift_scale(vae)
    decoded: Tensor = vae.decode(latents.to(vae.device, vae.dtype) / scale + shift).sample
    return decoded / 2 + 0.5


def depth_from_decoded(decoded: Tensor, scale: float | Literal["minmax"] = 1.0) -> Tensor:
    """Depth (B, 1, H, W) from unclamped decoded channels: their mean, clamped to [0, 1], times ``scale``.

    scale: the value that 1 represents, in metres (8 in the paper); "minmax" stretches each map to [0, 1].
    """
    depth = decoded.mean(dim=1, keepdim=True).clamp(0, 1)
    if scale != "minmax":
        return depth * scale
    low, high = depth.amin(dim=(1, 2, 3), keepdim=True), depth.amax(dim=(1, 2, 3), keepdim=True)
    return (depth - low) / (high - low).clamp(min=torch.finfo(depth.dtype).tiny)


def downscale_factor(vae: Any) -> int:
    """Pixels per latent along a side, 8 for Stable Diffusion."""
    blocks = vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels")
    if not blocks:
        raise InputError(f"vae: {type(vae).__name__} has no block_out_channels; use an AutoencoderKL")
    return int(2 ** (len(blocks) - 1))


def working_size(size: Sequence[int], resolution: int | None, factor: int) -> tuple[int, int]:
    """(height, width) of the networks' input: the shorter side `resolution`, in whole latents.

    size: of the image; with `resolution` None it is kept. Raises InputError for images so narrow that enlarging
    them would take hours.
    """
    height, width = size
    scale = 1.0 if resolution is None else resolution / min(height, width)
    if scale > 1 and max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            f"{width} × {height} pixels: more than {MAX_ASPECT} times as long as wide, and would be enlarged to "
            f"{resolution} pixels in width; crop the image"
        )
    return max(1, round(height * scale / factor)) * factor, max(1, round(width * scale / factor)) * factor


def _shift_scale(vae: Any) -> tuple[float, float]:
    return vae.config.get("shift_factor") or 0.0, vae.config.get("scaling_factor") or 1.0
