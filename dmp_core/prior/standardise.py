"""Every latent channel to mean 0 and deviation 1, without changing what the autoencoder computes.

Diffusers has one scaling factor for all channels and our latents use no shift, but trained channels differ
several times in spread, and their means are not 0; the noise schedule (made for unit variance around 0) fits badly.
The 1 × 1 convolutions around the latents are linear, so that the change of units is put into their weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def standardise_latents(vae: Any, images: Tensor, batch_size: int = 32) -> None:
    """Rescale an AutoencoderKL in place, by the statistics of the latents of `images`.

    images: (N, 3, H, W) in [-1, 1]. Afterwards the posterior's mean has mean 0 and deviation 1 in each channel
    over these images, its standard deviation is in the same units, and encode-decode gives the same images as before.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(batch_size)])
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)).clamp_min(1e-6)
    _encode_into(vae.quant_conv, mean, deviation)
    _decode_from(vae.post_quant_conv, mean, deviation)


def _encode_into(conv: Any, mean: Tensor, deviation: Tensor) -> None:
    """z ↦ (z - mean) / deviation on the means, log σ² ↦ log σ² - 2 log deviation on the variances."""
    channels = len(mean)
    conv.weight[:channels] /= deviation[:, None, None, None]
    conv.bias[:channels] = (conv.bias[:channels] - mean) / deviation
    conv.bias[channels:] -= 2 * deviation.log()


def _decode_from(conv: Any, mean: Tensor, deviation: Tensor) -> None:
    """The inverse, z ↦ z · deviation + mean, before the convolution's own weights."""
    conv.bias += conv.weight[:, :, 0, 0] @ mean
    conv.weight *= deviation[None, :, None, None]
