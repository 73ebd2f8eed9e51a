"""Learning rates as a function of the step, and the checks that catch training without effect."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from dmp_core.errors import InputError
from dmp_core.training.settings import FitConfig


def learning_rate(config: FitConfig, step: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up, then the schedule down to 0.

    A function only of the step: there is no scheduler whose state could be lost.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[config.lr_schedule]
    return config.learning_rate * factor


def make_optimizer(config: FitConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW in its fused form, where the device supports it: one pass over all parameters.

    That form takes `found_inf`, as `torch.amp.GradScaler` sets it, and skips the step where it is 1.
    """
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def check_gradients(parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Every trainable parameter must be reached by the loss, and some gradient must be other than zero.

    Called after the first backward pass. (LoRA's down matrices rightly have a zero gradient there, since
    the up matrices start at zero.) Raises InputError naming a parameter.
    """
    trainable = [(name, p) for name, p in parameters if p.requires_grad]
    if not trainable:
        raise InputError("training: nothing is trainable; lora.targets matched no layer, or all weights are frozen")
    unreached = [name for name, p in trainable if p.grad is None]
    if unreached:
        raise InputError(
            f"training: {len(unreached)} of {len(trainable)} trainable parameters get no gradient "
            f"(first: {unreached[0]}); narrow lora.targets to layers that the U-Net runs, "
            "and look for a no_grad around them"
        )
    if not any(bool(p.grad.any()) for _, p in trainable if p.grad is not None):
        raise InputError(
            "training: all gradients are exactly zero on the first step; the loss does not see the network"
        )
