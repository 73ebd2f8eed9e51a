"""Reverse diffusion: from the image x to the label y (eq. 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, overload

import torch
from torch import Tensor

from dmp_core.diffusion.process import blend, check_prediction, estimate_x, estimate_y
from dmp_core.diffusion.schedule import Schedule
from dmp_core.errors import InputError
from dmp_core.names import Prediction, Source

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(y_t (B, C, h, w), t int64 (B,)) -> the network's output, (B, C, h, w)."""

SOURCES: tuple[str, ...] = get_args(Source)


@overload
def sample(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    num_steps: int = ...,
    prediction: Prediction = ...,
    source: Source = ...,
    trajectory: Literal[False] = ...,
) -> Tensor: ...


@overload
def sample(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    num_steps: int = ...,
    prediction: Prediction = ...,
    source: Source = ...,
    *,
    trajectory: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def sample(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    num_steps: int = 5,
    prediction: Prediction = "v",
    source: Source = "oracle",
    trajectory: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Turn x into y: start at y_T = x and apply eq. 4 at every timestep of the schedule.

        y_{t-1} = √ᾱ_{t-1} · ŷ + √(1 - ᾱ_{t-1}) · x                (4)

    denoise: the network, (y_t, t) -> its prediction of x, y or v.
    x: image latents (B, C, h, w).
    source: the x of eq. 4. "oracle" takes the given x (for ``prediction="x"`` the network's
        output *is* the source, as published, so both choices coincide); "estimated" takes the
        x̂ that the output implies, which is plain DDIM.
    trajectory: also return the latents after every step, (num_steps, B, C, h, w).

    Returns y (B, C, h, w), or (y, trajectory). Raises InputError on unknown choices, and where
    ``prediction="x"`` has a timestep with ᾱ_t = 0, which leaves y undetermined.

    One network pass returned as it is (the paper's single step) is ``num_steps=1``,
    ``prediction="y"`` on a schedule with ``set_alpha_to_one=True``.
    """
    check_prediction(prediction)
    check_source(source)
    y_t, latents = x, []
    for t, alpha, alpha_next in schedule.steps(num_steps):
        _check_determined(prediction, t, alpha)
        output = denoise(y_t, torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device))
        y = estimate_y(y_t, output, alpha, prediction)
        known = source == "oracle" and prediction != "x"
        y_t = blend(y, x if known else estimate_x(y_t, output, alpha, prediction), alpha_next)
        if trajectory:
            latents.append(y_t)
    return (y_t, torch.stack(latents)) if trajectory else y_t


def unet_denoiser(
    unet: Callable[..., Any], embeds: Tensor, empty: Tensor | None = None, guidance_scale: float = 1.0
) -> Denoiser:
    """The conditional U-Net as a denoiser.

    embeds: text embeddings (B, L, D), or (1, L, D) for one text shared by the batch.
    empty: embeddings of the empty prompt; with ``guidance_scale`` other than 1 the output is
        out(∅) + guidance_scale · (out(text) - out(∅)), at twice the cost.
    """

    def run(y_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        out: Tensor = unet(y_t, t, encoder_hidden_states=text.to(y_t.dtype)).sample
        return out

    def plain(y_t: Tensor, t: Tensor) -> Tensor:
        return run(y_t, t, embeds.expand(len(y_t), -1, -1))

    if empty is None or guidance_scale == 1.0:
        return plain
    unconditional = empty

    def guided(y_t: Tensor, t: Tensor) -> Tensor:
        texts = torch.cat([e.expand(len(y_t), -1, -1) for e in (unconditional, embeds)])
        without, with_text = run(torch.cat([y_t, y_t]), torch.cat([t, t]), texts).chunk(2)
        return without + guidance_scale * (with_text - without)

    return guided


def check_source(source: str) -> None:
    """Raise InputError unless ``source`` is "oracle" or "estimated"."""
    if source not in SOURCES:
        raise InputError(f"source: {source!r}; choose 'oracle' (eq. 4) or 'estimated' (plain DDIM)")


def _check_determined(prediction: str, t: int, alpha: Tensor) -> None:
    if prediction == "x" and float(alpha) == 0.0:
        raise InputError(
            f"prediction: 'x' cannot recover y at t={t}, where the schedule reaches zero SNR; "
            "predict 'v' or 'y', or use zero_terminal_snr=False"
        )
