"""One training loop for both parts: AdamW, cosine, gradient clipping, EMA, log, exact resume.

Each worker thread takes a share of every batch, with torch's own threads off: such small networks spend their time
between kernels, so that two threads inside each kernel gain little, and wait whenever another process takes a core.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dmp_core.errors import InputError
from dmp_core.prior.config import TrainingConfig
from dmp_core.progress import Progress, silent
from dmp_core.training.checkpoints import LOG, load_checkpoint, read_checkpoint, save_checkpoint
from dmp_core.training.precision import autocast_bf16

_IDENTITY = "prior"  # settings may change between sessions: more steps, other minutes

LossFunction = Callable[[int, slice], dict[str, Tensor]]
"""(step, share) → named scalars of this share of the step's batch, each a mean over it; `loss` is the one to
minimise. All randomness must derive from the step. Called from several threads at the same time."""


def fit(
    modules: dict[str, nn.Module],
    loss_at: LossFunction,
    config: TrainingConfig,
    work: Path,
    progress: Progress = silent,
    workers: int = 1,
) -> dict[str, dict[str, Tensor]]:
    """Train `modules` until `config.steps` or `config.minutes` (of all sessions together) are used up.

    Resumes from the last intact checkpoint in `work`. Writes `log.csv`. Returns the averaged weights by module.
    Raises InputError when the loss, its gradient or a weight is not finite; earlier checkpoints are then still intact.
    """
    work.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    state = _State(modules, optimizer, work)
    for module in modules.values():
        module.train()
    with Team(loss_at, parameters, config.bf16, workers) as team:
        while (share := state.share_done(config)) < 1:
            rate = config.learning_rate * min(1.0, (state.step + 1) / max(1, config.warmup_steps)) * _cosine(share)
            values = team.set_gradients(state.step)
            _update(parameters, optimizer, rate, config.max_grad_norm, state.step)
            state.step += 1
            state.average(config.ema_decay)
            state.record(values, rate)
            if state.step % config.log_every == 0:
                state.log()
                left = "" if config.minutes is None else f", {config.minutes - state.seconds / 60:.0f} min left"
                progress(state.step, config.steps, f"loss {values['loss']:.4f}{left}")
            if state.step % config.checkpoint_every == 0:
                state.save()
    state.save()
    return state.ema


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share)) * 0.98 + 0.02


class Team:
    """Threads that each take a share of every batch, with torch's own threads off."""

    def __init__(self, loss_at: LossFunction, parameters: list[nn.Parameter], bf16: bool, workers: int) -> None:
        self.loss_at, self.parameters, self.bf16 = loss_at, parameters, bf16
        self.shares = [slice(number, None, workers) for number in range(workers)]

    def __enter__(self) -> Team:
        self.torch_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(len(self.shares))
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown()
        torch.set_num_threads(self.torch_threads)

    def set_gradients(self, step: int) -> dict[str, float]:
        """Give every parameter the gradient of the step's batch; returns the batch's values."""
        parts = list(self.pool.map(lambda share: self._backward(step, share), self.shares))
        for number, parameter in enumerate(self.parameters):
            found = [grad for _, gradients in parts if (grad := gradients[number]) is not None]
            # In the parameter's own memory format: the fused optimiser reads both as flat memory.
            parameter.grad = torch.empty_like(parameter).copy_(reduce(torch.add, found) / len(parts)) if found else None
        return {name: sum(values[name] for values, _ in parts) / len(parts) for name in parts[0][0]}

    def _backward(self, step: int, share: slice) -> tuple[dict[str, float], tuple[Tensor | None, ...]]:
        # No cache of cast weights: all threads would share it.
        with autocast_bf16("cpu", self.bf16, cache_enabled=False):
            values = self.loss_at(step, share)
        _check_finite("loss", step, values["loss"].item())
        gradients = torch.autograd.grad(values["loss"], self.parameters, allow_unused=True)
        return {name: value.item() for name, value in values.items()}, gradients


def _update(parameters: list[nn.Parameter], optimizer: Any, rate: float, max_norm: float, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    _check_finite("gradient", step, float(nn.utils.clip_grad_norm_(parameters, max_norm)))
    optimizer.step()


def _check_finite(what: str, step: int, value: float) -> None:
    """Before the optimiser's step: the weights are then still intact."""
    if not math.isfinite(value):
        raise InputError(
            f"training: the {what} is {value} at step {step + 1}; lower learning_rate. Checkpoints are kept"
        )


class _State:
    """Contents of a checkpoint."""

    def __init__(self, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, work: Path) -> None:
        self.modules, self.optimizer = modules, optimizer
        self.folder, self.log_file = work / "checkpoints", work / "log.csv"
        self.step, self.seconds = 0, 0.0
        self.ema = {name: _copy(module.state_dict()) for name, module in modules.items()}
        self.pending: list[dict[str, float]] = []
        self.rows: list[list[str]] = []
        saved = load_checkpoint(self.folder, _IDENTITY)
        if saved is None and (old := work / "checkpoint.pt").exists():  # of older versions, which kept one
            saved = read_checkpoint(old)
        if saved is not None:
            self._restore(saved)
        self.log_file.unlink(missing_ok=True)  # steps after the checkpoint are logged again
        if self.rows:
            self._write_log(self.rows, "w")
        self.started = time.monotonic() - self.seconds

    def share_done(self, config: TrainingConfig) -> float:
        """Share of the steps or minutes used, whichever is larger; 1 and above: all."""
        self.seconds = time.monotonic() - self.started
        minutes = 0.0 if config.minutes is None else self.seconds / (60 * config.minutes)
        return max(self.step / config.steps, minutes)

    def average(self, decay: float) -> None:
        """EMA of the weights; a young average has a faster decay."""
        keep = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, module in self.modules.items():
                for key, value in module.state_dict().items():
                    if value.is_floating_point():
                        self.ema[name][key].lerp_(value, 1 - keep)

    def record(self, values: dict[str, float], rate: float) -> None:
        self.pending.append(values | {"lr": rate})

    def log(self) -> None:
        """Append the means since the last line."""
        names = list(self.pending[0])
        means = {name: sum(row[name] for row in self.pending) / len(self.pending) for name in names}
        values = [f"{means[name]:.6g}" for name in names]
        fresh = [] if self.rows else [["step", "seconds", *names]]
        fresh.append([str(self.step), str(round(self.seconds, 1)), *values])
        self._write_log(fresh, "a")
        self.rows.extend(fresh)
        self.pending.clear()

    def _logged(self) -> list[list[str]]:
        """The rows so far from the file, for old checkpoints without rows."""
        if not self.log_file.exists() or not self.log_file.stat().st_size:
            return []
        with self.log_file.open(newline="", errors="replace") as stream:
            header, *rows = csv.reader(stream)
        return [header, *(row for row in rows if row and row[0].isdecimal() and int(row[0]) <= self.step)]

    def _write_log(self, rows: list[list[str]], mode: Literal["a", "w"]) -> None:
        with self.log_file.open(mode, newline="") as stream:
            csv.writer(stream).writerows(rows)

    def save(self) -> None:
        state = {
            "identity": _IDENTITY,
            "step": self.step,
            LOG: self.rows,
            "seconds": self.seconds,
            "ema": self.ema,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.folder, self.step, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.ema = state["step"], state["seconds"], state["ema"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rows = state[LOG] if LOG in state else self._logged()


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def parameter_count(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
