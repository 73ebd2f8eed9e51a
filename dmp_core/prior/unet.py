"""The denoiser: U-Net and text encoder trained together to predict the noise, on cached latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dmp_core.diffusion import Schedule, interpolate
from dmp_core.diffusion.labels import encode
from dmp_core.images import image_to_vae
from dmp_core.prior.config import PriorConfig, UNetConfig
from dmp_core.prior.data import Scenes, load_scenes
from dmp_core.prior.loop import fit
from dmp_core.prior.start import load_part, start_of_unet
from dmp_core.prior.text import build_text_encoder, build_tokenizer
from dmp_core.progress import Progress, silent


def build_unet(config: PriorConfig) -> Any:
    """UNet2DConditionModel with cross-attention at every level, random weights."""
    from diffusers import UNet2DConditionModel

    settings = config.unet
    levels = len(settings.block_out_channels)
    torch.manual_seed(settings.seed)
    return UNet2DConditionModel(
        sample_size=config.latent_size,
        in_channels=config.vae.latent_channels,
        out_channels=config.vae.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=tuple(settings.block_out_channels),
        layers_per_block=settings.layers_per_block,
        cross_attention_dim=settings.text.hidden_size,
        attention_head_dim=settings.heads,
        norm_num_groups=settings.norm_num_groups,
    )


@torch.no_grad()
def scene_latents(vae: Any, scenes: Scenes, flip: bool) -> Tensor:
    """Scaled latents (1 or 2, N, c, h, w): plain, then mirrored."""
    images = image_to_vae(scenes.rgb)
    return torch.stack([encode(vae, variant, 64) for variant in (images, images.flip(-1))[: 1 + flip]])


def loss_weights(snr: Tensor, gamma: float | None) -> Tensor:
    """min(SNR, gamma) / SNR, (B,): min-SNR weighting for noise prediction (Hang et al. 2023); ones without gamma."""
    return torch.ones_like(snr) if gamma is None else snr.clamp(max=gamma) / snr


def train_unet(
    config: PriorConfig, vae: Any, scenes_folder: Path, work: Path, progress: Progress = silent
) -> tuple[Any, Any, Any]:
    """Train, or resume; returns the averaged U-Net and text encoder, and the tokenizer."""
    settings: UNetConfig = config.unet
    scenes = load_scenes(config.scenes, scenes_folder, held_out=False)
    start = start_of_unet(config)
    if start is None:
        tokenizer = build_tokenizer(config, work / "tokenizer")
        text_encoder, unet = build_text_encoder(config, tokenizer), build_unet(config)
    else:
        tokenizer, text_encoder, unet = (load_part(start, part) for part in ("tokenizer", "text_encoder", "unet"))
    unet.to(memory_format=torch.channels_last)  # 15 % faster on a CPU
    latents = scene_latents(vae, scenes, settings.flip)
    tokens = _tokens(tokenizer, [*scenes.captions, ""])
    schedule = Schedule.stable_diffusion()

    def loss_at(step: int, share: slice) -> dict[str, Tensor]:
        rng = np.random.default_rng([settings.seed, 7, step])
        chosen = torch.from_numpy(rng.integers(len(scenes), size=settings.batch_size))
        mirrored = torch.from_numpy(rng.integers(len(latents), size=settings.batch_size))
        empty = torch.from_numpy(rng.random(settings.batch_size) < settings.caption_dropout)
        timesteps = torch.from_numpy(rng.integers(schedule.num_train_timesteps, size=settings.batch_size))
        clean = latents[mirrored, chosen]
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        chosen, empty, timesteps, clean, noise = (part[share] for part in (chosen, empty, timesteps, clean, noise))
        noisy = interpolate(schedule, clean, noise, timesteps)  # eq. 1 and eq. 2 differ only in what is mixed in
        embeds = text_encoder(tokens[torch.where(empty, len(scenes), chosen)])[0]
        error = F.mse_loss(unet(noisy, timesteps, encoder_hidden_states=embeds).sample, noise, reduction="none")
        per_image = error.mean(dim=(1, 2, 3))
        weights = loss_weights(schedule.snr(timesteps), settings.min_snr_gamma)
        return {"loss": (weights * per_image).mean(), "noise_mse": per_image.mean()}

    averaged = fit({"unet": unet, "text_encoder": text_encoder}, loss_at, settings, work, progress, config.workers)
    for module, name in ((unet, "unet"), (text_encoder, "text_encoder")):
        module.load_state_dict(averaged[name])
        module.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    return unet, text_encoder, tokenizer


def _tokens(tokenizer: Any, captions: list[str]) -> Tensor:
    length = tokenizer.model_max_length
    encoded = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    tokens: Tensor = encoded.input_ids
    return tokens
