"""One training loop for every fit by gradient descent: logged, checked, resumed exactly after a kill.

Arguments are what differs between methods: the network, its trained parameters, and the loss of a draw.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from dmp_core.errors import InputError, check_installed
from dmp_core.processes import deferred_interrupts
from dmp_core.progress import Progress, silent
from dmp_core.training.checkpoints import LOG, load_checkpoint, save_checkpoint
from dmp_core.training.logs import FILE, StepRecord, TrainingLog
from dmp_core.training.optimisation import check_gradients, learning_rate, make_optimizer
from dmp_core.training.pace import Pace
from dmp_core.training.precision import keep_freed_memory
from dmp_core.training.settings import FitConfig
from dmp_core.training.trackers import tracked

if TYPE_CHECKING:
    from accelerate import Accelerator

LossAt = Callable[[Any, int], Tensor]
"""(network, number of the draw) → this process's loss, a scalar. All randomness must derive from the number."""

SMALLEST_SCALE = 2.0**-16
"""Of the loss in half precision. It starts at 2^16; if halving it 32 times does not help, the gradient is not
too large but NaN."""


@dataclass(frozen=True)
class FitResult:
    """Result of a training run. `seconds` and `resumed_at` are of this process alone."""

    folder: Path
    """The trained parameters."""
    log: Path
    """`loss.csv`, one row per step."""
    losses: tuple[float, ...]
    """Loss of every step."""
    seconds: float
    resumed_at: int
    """Steps done before this process, from the checkpoint."""
    trainable_parameters: int

    @property
    def final_loss(self) -> float:
        """Mean over the last tenth of the steps."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail) if tail else math.nan

    def summary(self) -> dict[str, Any]:
        """For an artefact's manifest."""
        return {
            "steps": len(self.losses),
            "final_loss": self.final_loss,
            "trainable_parameters": self.trainable_parameters,
            "resumed_at": self.resumed_at,
        }


def train(
    config: FitConfig,
    network: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    loss_at: LossAt,
    work: str | Path,
    out: str | Path,
    about: Mapping[str, Any],
    save: Callable[[Path], Any],
    accelerator: Accelerator,
    progress: Progress = silent,
) -> FitResult:
    """`fit`, after which the main process calls `save` to write the result into the folder `out`, next to the log.

    about: what identifies the run (`identity_of`): its settings, base model and data.
    """
    out = Path(out)
    result = fit(config, network, parameters, loss_at, Path(work), identity_of(about), accelerator, progress)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        save(out)
        shutil.copyfile(result.log, out / FILE)
    accelerator.wait_for_everyone()
    return replace(result, folder=out, log=out / FILE)


def fit(
    config: FitConfig,
    network: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    loss_at: LossAt,
    work: Path,
    identity: str,
    accelerator: Accelerator,
    progress: Progress = silent,
) -> FitResult:
    """Train `parameters` in place, or resume a killed run, which ends with the same weights.

    network: what `loss_at` is called with, wrapped if several processes share the work.
    work: checkpoints, `loss.csv` and TensorBoard files go here; kept between runs.
    identity: identifies the run (`identity_of`); only its own checkpoints are resumed from.
    progress: called after every optimiser step with a message that names the last loss that was read.

    A step waits for the device only where its numbers are read: every `log_every` steps, and before a checkpoint.
    Raises InputError when nothing would be trained, when checkpoints belong to another run, or when the loss, its
    gradient or a weight is not finite; no checkpoint contains what such a step would have left.
    """
    run = _Run(config, network, parameters, loss_at, work, identity, accelerator)
    started = time.monotonic()
    main = accelerator.is_main_process
    resumed_at = run.step
    pace = Pace(config.steps, run.step)
    with (
        tracked(config, work, run.step, accelerator.device) if main else nullcontext() as track,
        closing(TrainingLog(work, run.step, config.log_every, run.recorded, track)) if main else nullcontext() as log,
        # Each step needs all processes, so the first one decides when to end.
        deferred_interrupts() if main else nullcontext() as interrupts,
    ):
        while run.step < config.steps:
            run.advance()
            ends = interrupts is not None and interrupts.number is not None
            saves = ends or run.step % config.checkpoint_every == 0 or run.step == config.steps
            # The first one is read at once: its numbers tell the most errors.
            read = run.read() if saves or run.step % config.log_every == 0 or run.step == resumed_at + 1 else []
            if log is None or interrupts is None:
                continue
            for record in read:
                log.add(record)
            progress(run.step, config.steps, f"loss {run.losses[-1]:.4f}{pace.step(run.step)}")
            if saves:
                run.save(log)
                interrupts.deliver()
    return FitResult(
        folder=work,
        log=work / FILE,
        losses=tuple(run.losses),
        seconds=time.monotonic() - started,
        resumed_at=resumed_at,
        trainable_parameters=sum(p.numel() for p in parameters.values()),
    )


def make_accelerator(config: FitConfig, device: str) -> Accelerator:
    """Accelerate's object for this run. Raises InputError when the processes cannot share a batch evenly."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Process-wide state would prevent a second run with another precision in the same process.
    AcceleratorState._reset_state()
    if device == "cpu":
        keep_freed_memory()
    check_installed(config.trackers)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
    )
    if config.batch_size % accelerator.num_processes:
        raise InputError(
            f"train.batch_size: {config.batch_size} does not divide among {accelerator.num_processes} processes; "
            "choose a multiple"
        )
    return accelerator


_TECHNICAL = ("checkpoint_every", "log_every", *FitConfig.technical)


def identity_of(card: Mapping[str, Any]) -> str:
    """A checkpoint continues a run only if all of this is the same. card["training"]: the dumped configuration."""
    # How often and where to report or save changes no weight, and the number of processes only their last digits.
    training = {k: v for k, v in card["training"].items() if k not in _TECHNICAL}
    text = json.dumps({**card, "training": training}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class _Unread(NamedTuple):
    """A step whose numbers are still on the device: the loss of each of its batches, and the gradient's norm."""

    step: int
    rate: float
    numbers: list[Tensor]


class _Run:
    """The state of one training run: everything between two steps."""

    def __init__(
        self,
        config: FitConfig,
        network: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        loss_at: LossAt,
        work: Path,
        identity: str,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.parameters = dict(parameters)
        self.loss_at = loss_at
        self.work = work
        self.identity = identity
        self.accelerator = accelerator
        optimizer = make_optimizer(config, self.parameters.values())
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.step = 0
        self.losses: list[float] = []
        self.recorded: Tensor | None = None
        """The log's rows, if a checkpoint contained them."""
        self.unread: list[_Unread] = []
        self._resume()
        self._check_alike()
        self.since = time.monotonic()
        """When the step after the last one read began."""

    # ------------------------------------------------------------------------------ one step
    def advance(self) -> None:
        """One optimiser step over `gradient_accumulation` batches, which skips itself if a number is not finite."""
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        accumulation = self.config.gradient_accumulation
        losses: list[Tensor] = []
        for micro in range(accumulation):
            with self.accelerator.accumulate(self.network):
                loss = self.loss_at(self.network, self.step * accumulation + micro)
                self.accelerator.backward(loss)
                losses.append(self.accelerator.gather(loss.detach()).mean())
                if self.accelerator.sync_gradients:
                    norm = self._clip()
                    self._skip_unless_finite([*losses, norm])
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.step += 1
        self.unread.append(_Unread(self.step, rate, [*losses, norm]))

    def read(self) -> list[StepRecord]:
        """The steps since the last reading; this waits for the device. Raises InputError if one is not finite."""
        if not self.unread:
            return []
        rows = torch.stack([torch.stack([number.float() for number in step.numbers]) for step in self.unread]).tolist()
        now = time.monotonic()
        seconds, self.since = (now - self.since) / len(self.unread), now
        records = []
        for unread, (*losses, norm) in zip(self.unread, rows, strict=True):
            records.append(StepRecord(unread.step, sum(losses) / len(losses), unread.rate, norm, seconds))
            self._check_finite(records[-1])
        self.unread = []
        self.losses += [record.loss for record in records]
        return records

    def _clip(self) -> Tensor:
        """The gradient's norm before it was clipped."""
        if self.step == 0:
            check_gradients(self.parameters.items())
        norm: Tensor = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        return norm

    def _skip_unless_finite(self, numbers: list[Tensor]) -> None:
        """Decided on the device, by the fused optimiser. A scaler, where there is one, does this itself."""
        if self.accelerator.scaler is None and self.optimizer.optimizer.defaults["fused"]:
            finite = torch.isfinite(torch.stack([number.float() for number in numbers])).all()
            self.optimizer.optimizer.found_inf = (~finite).float()

    def _check_finite(self, record: StepRecord) -> None:
        if not math.isfinite(record.loss):
            self._stop("loss", record.loss, record)
        scaler = self.accelerator.scaler
        # In half precision that may be mere overflow: the scaler then skips the step and halves its scale.
        if not math.isfinite(record.grad_norm) and (scaler is None or scaler.get_scale() < SMALLEST_SCALE):
            self._stop("gradient", record.grad_norm, record)

    def _stop(self, what: str, value: float, record: StepRecord) -> NoReturn:
        raise InputError(
            f"training: the {what} is {value} at step {record.step} (learning rate "
            f"{record.learning_rate:.3g}); lower train.learning_rate or train.max_grad_norm, "
            f"or train in full precision. Checkpoints are kept in {self.work / 'checkpoints'}"
        )

    # --------------------------------------------------------------------------- checkpoints
    def save(self, log: TrainingLog) -> None:
        scaler = self.accelerator.scaler
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            LOG: log.table(),
            "weights": {name: p.detach().cpu() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            # Nothing draws from these unless the network has dropout; such a network resumes exactly too.
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.accelerator.device.type == "cuda" else None,
        }
        save_checkpoint(self.work / "checkpoints", self.step, state)

    def _check_alike(self) -> None:
        """Raise InputError unless all processes begin at one step: machines may have folders of their own."""
        if self.accelerator.num_processes > 1:
            steps = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device)).tolist()
            if len(set(steps)) > 1:
                raise InputError(
                    f"training: its processes found checkpoints of the steps {sorted(set(steps))} in {self.work}; "
                    "let all machines use one shared folder, or a bucket, as workspace"
                )

    def _resume(self) -> None:
        torch.manual_seed(self.config.seed)
        state = load_checkpoint(self.work / "checkpoints", self.identity)
        if state is None:
            return
        self.step, self.losses = state["step"], list(state["losses"])
        self.recorded = state.get(LOG)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"])
