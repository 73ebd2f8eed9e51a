"""The LoRA trainer: fine-tune the prior to morph images back into labels (paper, §3.2, eq. 2-3)."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmp_core.config.stages import TrainConfig
from dmp_core.diffusion import (
    Schedule,
    add_lora,
    fingerprint,
    interpolate,
    lora_parameters,
    save_adapter,
    training_target,
)
from dmp_core.diffusion.process import estimate_x
from dmp_core.diffusion.sampler import unet_denoiser
from dmp_core.errors import InputError
from dmp_core.progress import Progress, silent
from dmp_core.training.base import DTYPES
from dmp_core.training.checkpoints import load_checkpoint, save_checkpoint
from dmp_core.training.data import LatentPairs
from dmp_core.training.logs import StepRecord, TrainingLog
from dmp_core.training.optimisation import check_gradients, learning_rate, make_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dmp_core.diffusion import DMPPipeline


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. `seconds` and `resumed_at` speak of this process alone."""

    adapter: Path
    log: Path
    steps: int
    final_loss: float
    """Mean over the last tenth of the steps."""
    seconds: float
    resumed_at: int
    """Steps that a checkpoint had done already."""
    trainable_parameters: int


def train_lora(
    config: TrainConfig,
    base: DMPPipeline,
    pairs: LatentPairs,
    work: str | Path,
    out: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    prompts: Sequence[str] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> TrainResult:
    """Train an adapter, or go on with a run that was killed: it ends with the same weights.

    base: of `load_base`; its U-Net gets LoRA layers (call `dmp_core.diffusion.remove_adapter` to take
        them out again).
    pairs: image and label latents, batch size and seed.
    work: checkpoints, `loss.csv` and TensorBoard files go here; kept between runs.
    out: the finished adapter goes here: a PEFT folder, `dmp.json`, and a copy of `loss.csv`.
    card: what the run is about, for `dmp.json`: task, sampling defaults, label encoding, data
        fingerprints (see `make_card`).
    prompts: one caption a sample, in the order of `pairs.keys`; needed if `config.use_prompt`.
    progress: called after every optimiser step with a message that names the loss.

    Several processes (`accelerate launch`) share each batch. Raises InputError when nothing would be
    trained, when checkpoints belong to another run, or when the loss is not finite.
    """
    run = _Run(config, base, pairs, Path(work), dict(card or {}), prompts, device)
    started = time.monotonic()
    log = TrainingLog(run.work, run.step, config.log_every) if run.main else None
    resumed_at = run.step
    try:
        while run.step < config.steps:
            record = run.advance()
            if log is not None:
                _report(config, run, log, record, progress)
    finally:
        if log is not None:
            log.close()
    seconds = time.monotonic() - started
    adapter = _finish(run, Path(out))
    return TrainResult(
        adapter=adapter,
        log=adapter / "loss.csv",
        steps=run.step,
        final_loss=_final_loss(run.losses),
        seconds=seconds,
        resumed_at=resumed_at,
        trainable_parameters=sum(p.numel() for p in run.parameters.values()),
    )


def _report(config: TrainConfig, run: _Run, log: TrainingLog, record: StepRecord, progress: Progress) -> None:
    log.add(record)
    progress(run.step, config.steps, f"loss {record.loss:.4f}")
    if run.step % config.checkpoint_every == 0 or run.step == config.steps:
        run.save()


def _finish(run: _Run, out: Path) -> Path:
    if run.main:
        save_adapter(run.unet, out, run.card)
        shutil.copyfile(run.work / "loss.csv", out / "loss.csv")
    run.accelerator.wait_for_everyone()
    return out


def _final_loss(losses: Sequence[float]) -> float:
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail) if tail else math.nan


class _Run:
    """The state of one training run: everything between two steps."""

    def __init__(
        self,
        config: TrainConfig,
        base: DMPPipeline,
        pairs: LatentPairs,
        work: Path,
        card: dict[str, Any],
        prompts: Sequence[str] | None,
        device: str,
    ) -> None:
        self.config = config
        self.pairs = pairs
        self.work = work
        self.accelerator = _accelerator(config, device)
        self.main = self.accelerator.is_main_process
        self.schedule = Schedule.from_config(base.scheduler.config, **config.schedule.model_dump())
        self.timesteps = _trained_timesteps(self.schedule, config.num_timesteps)
        self.texts = _TextEmbeddings(base, config, pairs, prompts)
        self.card = _complete_card(card, config, base, pairs)
        self.identity = _identity(self.card)

        self.unet = base.unet.to(self.accelerator.device)
        if self.unet.dtype != DTYPES[config.mixed_precision]:
            self.unet = self.unet.to(DTYPES[config.mixed_precision])
        lora = config.lora
        add_lora(self.unet, lora.rank, lora.alpha, lora.targets, seed=config.seed)
        self.unet.train()
        self.parameters: dict[str, nn.Parameter] = dict(lora_parameters(self.unet))
        optimizer = make_optimizer(config, self.parameters.values())
        self.network, self.optimizer = self.accelerator.prepare(self.unet, optimizer)
        self.step = 0
        self.losses: list[float] = []
        self._resume()

    # ------------------------------------------------------------------------------ one step
    def advance(self) -> StepRecord:
        """One optimiser step over `gradient_accumulation` batches."""
        started = time.monotonic()
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        accumulation = self.config.gradient_accumulation
        losses, norm = [], torch.zeros(())
        for micro in range(accumulation):
            with self.accelerator.accumulate(self.network):
                loss = self._loss(self.step * accumulation + micro)
                self._check_finite(loss)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    norm = self._clip()
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(self.accelerator.gather(loss.detach()).mean().item())
        self.step += 1
        self.losses.append(sum(losses) / len(losses))
        return StepRecord(self.step, self.losses[-1], rate, float(norm), time.monotonic() - started)

    def _loss(self, draw: int) -> Tensor:
        """‖target(x, y, t) - U-Net(y_t, t)‖², the mean over everything (eq. 3)."""
        batch = self._share(draw)
        device, dtype = self.accelerator.device, self.unet.dtype
        x, y = (latents.to(device, torch.float32) for latents in self.pairs.gather(batch))
        # The draw is uniform over the whole schedule; the timesteps trained at share it evenly.
        share = batch.timesteps * len(self.timesteps) // self.schedule.num_train_timesteps
        timesteps = self.timesteps[share].to(device)
        if self.config.num_timesteps is not None:
            x = self._starting_at_x(x, y, timesteps)
        y_t = interpolate(self.schedule, y, x, timesteps)
        target = training_target(self.schedule, y, x, timesteps, self.config.prediction)
        denoise = unet_denoiser(self.network, self.texts(batch.indices).to(device))
        return F.mse_loss(denoise(y_t.to(dtype), timesteps).float(), target)

    def _starting_at_x(self, x: Tensor, y: Tensor, timesteps: Tensor) -> Tensor:
        """At the first timestep, the source for which eq. 2 gives x: samplers start at x, with no label blended in."""
        alpha = self.schedule.alphas_cumprod.to(x.device)[timesteps].view(-1, 1, 1, 1)
        first = timesteps.view(-1, 1, 1, 1) == self.timesteps[-1]
        return torch.where(first, estimate_x(x, y, alpha, "y"), x)

    def _share(self, draw: int) -> Any:
        """This process's part of a draw; the parts are equal, so that the mean of means is the mean."""
        batch = self.pairs.batch(draw)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return batch if world == 1 else batch.part(rank, world)

    def _clip(self) -> Tensor:
        if self.step == 0:
            check_gradients(self.parameters.items())
        norm: Tensor = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        return norm

    def _check_finite(self, loss: Tensor) -> None:
        # Before backward: the weights, and the last checkpoint, are then still good.
        if not torch.isfinite(loss):
            raise InputError(
                f"training: the loss is {loss.item()} at step {self.step + 1} (learning rate "
                f"{learning_rate(self.config, self.step):.3g}); lower train.learning_rate or train.max_grad_norm, "
                f"or train in full precision. Checkpoints are kept in {self.work / 'checkpoints'}"
            )

    # --------------------------------------------------------------------------- checkpoints
    def save(self) -> None:
        scaler = self.accelerator.scaler
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            "weights": {name: p.detach().cpu() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            # Nothing draws from these as long as the U-Net has no dropout; a base with it resumes exactly too.
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.accelerator.device.type == "cuda" else None,
        }
        save_checkpoint(self.work / "checkpoints", self.step, state)

    def _resume(self) -> None:
        torch.manual_seed(self.config.seed)
        state = load_checkpoint(self.work / "checkpoints", self.identity)
        if state is None:
            return
        self.step, self.losses = state["step"], list(state["losses"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"])


def _trained_timesteps(schedule: Schedule, num_steps: int | None) -> Tensor:
    """Ascending: all of the schedule's, or those of a sampler of `num_steps`."""
    return torch.arange(schedule.num_train_timesteps) if num_steps is None else schedule.timesteps(num_steps).flip(0)


class _TextEmbeddings:
    """What the U-Net is conditioned on: the empty prompt, (1, L, D), or each sample's caption, (B, L, D)."""

    def __init__(
        self, base: DMPPipeline, config: TrainConfig, pairs: LatentPairs, prompts: Sequence[str] | None
    ) -> None:
        dtype = DTYPES[config.mixed_precision]
        self.per_sample = config.use_prompt
        if not config.use_prompt:
            self.embeddings = _encode_prompts(base, [""]).to(dtype)
            return
        if prompts is None or len(prompts) != len(pairs):
            given = "none" if prompts is None else len(prompts)
            raise InputError(f"train.use_prompt: needs one prompt a sample ({len(pairs)}), found {given}")
        self.embeddings = _encode_prompts(base, prompts).to(dtype)

    def __call__(self, indices: Tensor) -> Tensor:
        return self.embeddings[indices] if self.per_sample else self.embeddings


@torch.no_grad()
def _encode_prompts(base: DMPPipeline, prompts: Sequence[str], batch_size: int = 64) -> Tensor:
    """Embeddings (N, L, D) on the CPU, computed once: the text encoder is frozen."""
    starts = range(0, len(prompts), batch_size)
    return torch.cat([base.encode_prompt(prompts[start : start + batch_size]).cpu() for start in starts])


def _accelerator(config: TrainConfig, device: str) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Process-wide state would forbid a second run with another precision in the same process.
    AcceleratorState._reset_state()
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


# -------------------------------------------------------------------------------------- card
def make_card(
    task: str,
    base_name: str,
    *,
    depth_scale: float,
    palette: str,
    sampling: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The part of `dmp.json` that the trainer cannot know: what the labels mean, and where they come from.

    sampling: `num_steps` and `source` that the adapter should be run with by default.
    data: fingerprints of the latents and of whatever else went in.
    """
    encoding: dict[str, Any] = {"mode": "RGB", "scale": 1.0, "axes": None, "palette": None}
    if task == "normal":
        encoding["axes"] = "right, up, toward the viewer; (n + 1) / 2"
    elif task == "depth":
        encoding |= {"mode": "F", "scale": depth_scale, "units": "metres"}
    elif task == "segmentation":
        encoding |= {"palette": palette, "classes": "ADE20K-150"}
    elif task == "shading":
        encoding |= {"mode": "F"}
    return {
        "task": task,
        "base": base_name,
        "encoding": encoding,
        "source": sampling["source"],
        "num_steps": sampling["num_steps"],
        "data": dict(data or {}),
    }


def _complete_card(card: dict[str, Any], config: TrainConfig, base: DMPPipeline, pairs: LatentPairs) -> dict[str, Any]:
    """The caller's part plus what the run itself decides. Taken before LoRA is added."""
    return {
        **card,
        "method": config.method,
        "prediction": config.prediction,
        "schedule": config.schedule.model_dump(mode="json"),
        "resolution": min(pairs.source.shape[-2:]) * _pixels_per_latent(base),
        "base_fingerprint": fingerprint(base.unet),
        "vae_fingerprint": fingerprint(base.vae),
        "training": config.model_dump(mode="json"),
        "samples": len(pairs),
        "flip": pairs.can_flip,
    }


def _pixels_per_latent(base: DMPPipeline) -> int:
    from dmp_core.diffusion import downscale_factor

    return downscale_factor(base.vae)


def _identity(card: Mapping[str, Any]) -> str:
    """A checkpoint continues a run only if all of this is the same."""
    # How often to report or save changes no weight.
    training = {k: v for k, v in card["training"].items() if k not in ("checkpoint_every", "log_every")}
    text = json.dumps({**card, "training": training}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
