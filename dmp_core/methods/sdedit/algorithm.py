"""SDEdit (Meng et al. 2022): noise the image to a strength, then denoise it as if it were a label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dmp_core.diffusion import Schedule
from dmp_core.diffusion.process import blend
from dmp_core.errors import InputError
from dmp_core.methods.shared.ddim import ddim, last_steps, prediction_of, seeded_noise
from dmp_core.methods.shared.label_prior import text_denoiser

if TYPE_CHECKING:
    from dmp_core.diffusion import DMPPipeline


@torch.no_grad()
def sdedit_latents(
    base: DMPPipeline,
    label_unet: Any,
    latents: Tensor,
    seeds: Sequence[int],
    strength: float = 0.5,
    num_steps: int = 50,
    prompts: Sequence[str] | None = None,
) -> Tensor:
    """Label latents (B, C, h, w) of image latents, float32.

    label_unet: of `load_label_prior`.
    seeds: one per sample; equal seeds give equal noise, whatever the batch or device.
    strength: part of the diffusion that is run, in (0, 1].
    prompts: one caption per sample, if it was trained with them; None: the empty prompt.

    Raises InputError when strength, steps or seeds are invalid.
    """
    if len(seeds) != len(latents):
        raise InputError(f"seeds: {len(seeds)} for {len(latents)} images; give one each")
    steps = last_steps(Schedule.from_config(base.scheduler.config), num_steps, strength)
    noise = seeded_noise(seeds, latents.shape[1:], latents.device)
    noisy = blend(latents.float(), noise, steps[0][1])
    return ddim(text_denoiser(base, label_unet, prompts), noisy, steps, prediction_of(base.scheduler))
