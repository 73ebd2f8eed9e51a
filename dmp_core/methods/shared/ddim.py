"""Deterministic diffusion with ordinary noise: DDIM, forwards and backwards (Song et al. 2021, eq. 12).

In the terms of `dmp_core.diffusion` noise takes the place of the image x, and predicting it is predicting x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmp_core.diffusion import Schedule
from dmp_core.diffusion.process import blend, estimate_x, estimate_y
from dmp_core.diffusion.sampler import Denoiser
from dmp_core.errors import InputError
from dmp_core.names import Prediction

Steps = Sequence[tuple[int, Tensor, Tensor]]
"""(t at which the network runs, ᾱ before the step, ᾱ after it)."""

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "x", "sample": "y", "v_prediction": "v"}


def ddim(denoise: Denoiser, latents: Tensor, steps: Steps, prediction: Prediction = "x") -> Tensor:
    """Take latents (B, C, h, w) along `steps`: generation with a schedule's, inversion with `inverted` ones."""
    for t, alpha, following in steps:
        times = torch.full((len(latents),), t, dtype=torch.int64, device=latents.device)
        output = denoise(latents, times)
        clean = estimate_y(latents, output, alpha, prediction)
        latents = blend(clean, estimate_x(latents, output, alpha, prediction), following)
    return latents


def inverted(steps: Steps) -> Steps:
    """The same steps in reverse order, from clean latents to noise.

    Each step runs the network where the step starts, although it needs the noise where the step ends. That makes
    inversion approximate; it becomes exact with many steps.
    """
    return [(t, after, before) for t, before, after in reversed(steps)]


def last_steps(schedule: Schedule, num_steps: int, strength: float) -> Steps:
    """The last `strength` part of a sampler of `num_steps`, at least one step: where SDEdit starts.

    Raises InputError unless 0 < strength ≤ 1.
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength: {strength}; choose more than 0, and at most 1 (which keeps nothing of the image)")
    return schedule.steps(num_steps)[num_steps - max(1, round(strength * num_steps)) :]


def prediction_of(scheduler: Any) -> Prediction:
    """What the model of a diffusers scheduler predicts, in our terms."""
    return _PREDICTIONS[scheduler.config.get("prediction_type", "epsilon")]


def seeded_noise(seeds: Sequence[int], shape: Sequence[int], device: Any = "cpu") -> Tensor:
    """Standard normal noise (B, *shape), each sample's from its own seed only: the same in any batch, on any device."""
    drawn = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


def drawn_noise(seed: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise of a training draw, float32."""
    return torch.from_numpy(np.random.default_rng(list(seed)).standard_normal(tuple(shape), dtype=np.float32))
