"""The deterministic diffusion process between an image x and its label y (paper, §3.2).

    y_t = √ᾱ_t · y + √(1 - ᾱ_t) · x                              (2)
    v_t = √ᾱ_t · x - √(1 - ᾱ_t) · y                              (target of 3)

(y, x) ↦ (y_t, v_t) is a rotation, so any one of x, y, v together with y_t gives the others.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from dmp_core.diffusion.schedule import Schedule
from dmp_core.errors import InputError
from dmp_core.names import Prediction

PREDICTIONS: tuple[str, ...] = get_args(Prediction)


def interpolate(schedule: Schedule, y: Tensor, x: Tensor, timesteps: Tensor) -> Tensor:
    """y_t of eq. 2.

    y, x: label and image latents (B, C, h, w); timesteps: int64 (B,). Returns (B, C, h, w).
    Raises InputError when the shapes disagree or a timestep is outside the schedule.
    """
    return blend(y, x, _alphas(schedule, y, x, timesteps))


def training_target(
    schedule: Schedule, y: Tensor, x: Tensor, timesteps: Tensor, prediction: Prediction = "v"
) -> Tensor:
    """The network's regression target at y_t: x, y, or v = √ᾱ_t x - √(1 - ᾱ_t) y (eq. 3). (B, C, h, w)."""
    check_prediction(prediction)
    return target_at(y, x, _alphas(schedule, y, x, timesteps), prediction)


def target_at(y: Tensor, x: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """`training_target` for a given ᾱ_t, broadcastable to y; checks nothing."""
    if prediction != "v":
        return {"x": x, "y": y}[prediction]
    signal, source = _roots(alpha, y)
    return signal * x - source * y


def estimate_y(y_t: Tensor, output: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """ŷ from the network's output at y_t (for v: the bracket of eq. 4).

    alpha: ᾱ_t, broadcastable to y_t. Predicting x divides by √ᾱ_t, so ᾱ_t must not be 0 there.
    """
    if prediction == "y":
        return output
    signal, source = _roots(alpha, y_t)
    if prediction == "x":
        return (y_t - source * output) / signal
    return signal * y_t - source * output


def estimate_x(y_t: Tensor, output: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """x̂ from the network's output at y_t. alpha: ᾱ_t; predicting y divides by √(1 - ᾱ_t)."""
    if prediction == "x":
        return output
    signal, source = _roots(alpha, y_t)
    if prediction == "y":
        return (y_t - signal * output) / source
    return signal * output + source * y_t


def check_prediction(prediction: str) -> None:
    """Raise InputError unless ``prediction`` is one of x, y, v."""
    if prediction not in PREDICTIONS:
        raise InputError(
            f"prediction: {prediction!r}; choose 'x' (diffusers: epsilon), 'y' (sample) or 'v' (v_prediction)"
        )


def _alphas(schedule: Schedule, y: Tensor, x: Tensor, timesteps: Tensor) -> Tensor:
    """ᾱ_t, float32 (B, 1, 1, 1)."""
    if y.shape != x.shape:
        raise InputError(f"y is {tuple(y.shape)} but x is {tuple(x.shape)}; the latents must have one shape")
    if timesteps.shape != y.shape[:1]:
        raise InputError(f"timesteps: shape {tuple(timesteps.shape)}; expected one per sample, ({y.shape[0]},)")
    return schedule.alphas(timesteps).to(y.device).view(-1, *[1] * (y.ndim - 1))


def _roots(alpha: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    # Roots in float32, then the latents' dtype: 1 - ᾱ_t loses its digits in half precision.
    alpha = alpha.to(like.device, torch.float32)
    return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)


def blend(y: Tensor, x: Tensor, alpha: Tensor) -> Tensor:
    """√ᾱ y + √(1 - ᾱ) x for a given ᾱ: eq. 2 without the look-up, as used in eq. 4 and in training."""
    signal, source = _roots(alpha, y)
    return torch.add(signal * y, source * x)
