"""DDIB (Su et al. 2023): to noise with the images' own prior, from there to a label with the labels' prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dmp_core.diffusion import Schedule
from dmp_core.methods.shared.ddim import ddim, inverted, prediction_of
from dmp_core.methods.shared.label_prior import text_denoiser

if TYPE_CHECKING:
    from dmp_core.diffusion import DMPPipeline


@torch.no_grad()
def ddib_latents(
    base: DMPPipeline, label_unet: Any, latents: Tensor, num_steps: int = 50, prompts: Sequence[str] | None = None
) -> Tensor:
    """Label latents (B, C, h, w) of image latents, float32. Nothing is drawn at random.

    label_unet: of `load_label_prior`, the one that SDEdit uses.
    num_steps: of DDIM, each way.
    prompts: one caption per sample, if the labels' prior was trained with them; None: the empty prompt.
    """
    steps = Schedule.from_config(base.scheduler.config).steps(num_steps)
    prediction = prediction_of(base.scheduler)
    noise = ddim(text_denoiser(base, base.unet, prompts), latents.float(), inverted(steps), prediction)
    return ddim(text_denoiser(base, label_unet, prompts), noise, steps, prediction)
