"""One training loop for both parts: AdamW, cosine, gradient clipping, EMA, log, exact resume."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmp_core.models.prior.config import TrainingConfig
from dmp_core.progress import Progress, silent

LossFunction = Callable[[int], dict[str, Tensor]]
"""step → named scalars; `loss` is the one to minimise. All randomness must derive from the step."""


def fit(
    modules: dict[str, nn.Module],
    loss_at: LossFunction,
    config: TrainingConfig,
    work: Path,
    progress: Progress = silent,
) -> dict[str, dict[str, Tensor]]:
    """Train `modules` until `config.steps` or `config.minutes` (of all sessions together) are used up.

    Goes on from the last checkpoint in `work`. Writes `log.csv`. Returns the averaged weights by module.
    """
    work.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    state = _State(modules, optimizer, work)
    for module in modules.values():
        module.train()
    clock = time.monotonic() - state.seconds
    while state.step < config.steps:
        state.seconds = time.monotonic() - clock
        share = state.step / config.steps
        if config.minutes is not None:
            share = max(share, state.seconds / (60 * config.minutes))
        if share >= 1:
            break
        rate = config.learning_rate * min(1.0, (state.step + 1) / max(1, config.warmup_steps)) * _cosine(share)
        values = _update(loss_at(state.step), parameters, optimizer, rate, config.max_grad_norm)
        state.step += 1
        state.average(config.ema_decay)
        state.record(values, rate)
        if state.step % config.log_every == 0:
            state.log(work / "log.csv")
            left = "" if config.minutes is None else f", {config.minutes - state.seconds / 60:.0f} min left"
            progress(state.step, config.steps, f"loss {float(values['loss']):.4f}{left}")
        if state.step % config.checkpoint_every == 0:
            state.save()
    state.save()
    return state.ema


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share)) * 0.98 + 0.02


def _update(
    values: dict[str, Tensor], parameters: list[nn.Parameter], optimizer: Any, rate: float, max_norm: float
) -> dict[str, Tensor]:
    if not torch.isfinite(values["loss"]):
        raise FloatingPointError("the loss is not finite; lower learning_rate, and resume from the last checkpoint")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    values["loss"].backward()
    nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    return {name: value.detach() for name, value in values.items()}


class _State:
    """What a checkpoint holds."""

    def __init__(self, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, work: Path) -> None:
        self.modules, self.optimizer, self.path = modules, optimizer, work / "checkpoint.pt"
        self.step, self.seconds = 0, 0.0
        self.ema = {name: _copy(module.state_dict()) for name, module in modules.items()}
        self.pending: list[dict[str, float]] = []
        if self.path.exists():
            self._load()

    def average(self, decay: float) -> None:
        """EMA of the weights; a young average forgets faster."""
        keep = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, module in self.modules.items():
                for key, value in module.state_dict().items():
                    if value.is_floating_point():
                        self.ema[name][key].lerp_(value, 1 - keep)

    def record(self, values: dict[str, Tensor], rate: float) -> None:
        self.pending.append({name: float(value) for name, value in values.items()} | {"lr": rate})

    def log(self, path: Path) -> None:
        """Append the means since the last line."""
        names = list(self.pending[0])
        means = {name: sum(row[name] for row in self.pending) / len(self.pending) for name in names}
        fresh = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if fresh:
                writer.writerow(["step", "seconds", *names])
            writer.writerow([self.step, round(self.seconds, 1), *(f"{means[name]:.6g}" for name in names)])
        self.pending.clear()

    def save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "ema": self.ema,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.rename(self.path)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.step, self.seconds, self.ema = state["step"], state["seconds"], state["ema"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def parameter_count(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
