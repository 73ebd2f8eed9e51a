"""The autoencoder: 8× smaller, trained on renders and on label images, since it must encode what DMP predicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dmp_core.images import image_to_vae
from dmp_core.modalities import Code, find_modality
from dmp_core.prior.config import PriorConfig, VAEConfig
from dmp_core.prior.data import Scenes, load_scenes
from dmp_core.prior.loop import fit
from dmp_core.prior.standardise import standardise_latents
from dmp_core.prior.start import load_part, start_folder
from dmp_core.progress import Progress, silent

GUIDED_NOISE = 0.05
"""Noise on the guide's codes, which have unit variance, so that the decoder learns to tolerate some."""


def build_vae(config: PriorConfig) -> Any:
    """AutoencoderKL of the recipe, with random weights."""
    from diffusers import AutoencoderKL

    levels = len(config.vae.block_out_channels)
    torch.manual_seed(config.vae.seed)
    vae = AutoencoderKL(
        sample_size=config.scenes.resolution,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.vae.block_out_channels),
        layers_per_block=config.vae.layers_per_block,
        latent_channels=config.vae.latent_channels,
        norm_num_groups=config.vae.norm_num_groups,
        scaling_factor=1.0,
    )
    _settle(vae)
    return vae


@torch.no_grad()
def _settle(vae: Any) -> None:
    """An initialisation that speeds up training: residual branches at zero, and a posterior with little noise."""
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    half = vae.config.latent_channels
    vae.quant_conv.weight[half:] *= 0.1
    vae.quant_conv.bias[half:] = -6.0  # log variance


def training_batch(scenes: Scenes, config: VAEConfig, step: int) -> Tensor:
    """Renders and label images of one step, (B, 3, H, W) in [-1, 1], half of them mirrored."""
    rng = np.random.default_rng([config.seed, step])
    labels = rng.random(config.batch_size) < config.label_share
    chosen = rng.integers(len(scenes), size=config.batch_size)
    rgb, code = scenes.rgb[chosen[~labels]], Code(depth_scale=config.depth_scale, palette=config.palette)
    parts = [image_to_vae(rgb)] if len(rgb) else []
    for index in chosen[labels]:
        modality = find_modality(config.label_images[rng.integers(len(config.label_images))])
        label = modality.from_codes(scenes.labels[modality.name][index : index + 1])
        parts.append(modality.to_image(label, code))
    batch = torch.cat(parts)
    mirror = torch.from_numpy(rng.random(len(batch)) < 0.5)
    return torch.where(mirror[:, None, None, None], batch.flip(-1), batch)


def reconstruction_loss(decoded: Tensor, images: Tensor, config: VAEConfig) -> Tensor:
    """L1 of pixels, of neighbour differences (sharp edges) and of 4 × 4 means (right colours)."""
    error = decoded - images
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    coarse = F.avg_pool2d(error, 4).abs().mean()
    return error.abs().mean() + config.gradient_weight * edges / 2 + config.coarse_weight * coarse


@dataclass(frozen=True)
class PatchCode:
    """Principal components of the image's patches: the best linear code of a latent's size, unit variance."""

    mean: Tensor
    basis: Tensor
    """(3 · patch², channels)."""
    deviation: Tensor
    patch: int

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to codes (B, channels, H / patch, W / patch)."""
        patches = F.pixel_unshuffle(images, self.patch).permute(0, 2, 3, 1)
        return ((patches - self.mean) @ self.basis / self.deviation).permute(0, 3, 1, 2)


def fit_patch_code(scenes: Scenes, config: VAEConfig, patch: int, batches: int = 100) -> PatchCode:
    """Fit on the images that training starts with."""
    images = torch.cat([training_batch(scenes, config, step) for step in range(batches)])
    patches = F.pixel_unshuffle(images, patch).permute(0, 2, 3, 1).flatten(0, 2)
    mean = patches.mean(dim=0)
    centred = patches - mean
    # Exact and deterministic: the covariance is small (192 × 192 for 8 × 8 patches).
    basis = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, : config.latent_channels]
    return PatchCode(mean, basis, (centred @ basis).std(dim=0).clamp_min(1e-6), patch)


def train_vae(config: PriorConfig, scenes_folder: Path, work: Path, progress: Progress = silent) -> Any:
    """Train, from random weights or from the autoencoder of `config.start`; resumes a stopped training.

    Returns the averaged model, its latents of unit variance.
    """
    scenes = load_scenes(config.scenes, scenes_folder, held_out=False)
    start = start_folder(config)
    vae = build_vae(config) if start is None else load_part(start, "vae")
    settings = config.vae if start is None else config.vae.model_copy(update={"guided_steps": 0})
    code = (
        fit_patch_code(scenes, settings, 2 ** (len(settings.block_out_channels) - 1)) if settings.guided_steps else None
    )

    def loss_at(step: int, share: slice) -> dict[str, Tensor]:
        images = training_batch(scenes, settings, step)[share]
        posterior = vae.encode(images).latent_dist
        shape = (settings.batch_size, *posterior.mean.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(step))[share]
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        guide = code if step < settings.guided_steps else None
        wanted = guide.encode(images) if guide else posterior.mean
        latents = wanted + GUIDED_NOISE * noise if guide else posterior.mean + posterior.std * noise
        reconstruction = reconstruction_loss(vae.decode(latents).sample, images, settings)
        loss = reconstruction + settings.kl_weight * kl + F.mse_loss(posterior.mean, wanted)
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    averaged = fit({"vae": vae}, loss_at, settings, work, progress, config.workers)
    vae.load_state_dict(averaged["vae"])
    vae.eval().requires_grad_(False)
    standardise_latents(vae, image_to_vae(scenes.rgb[:256]))
    return vae
