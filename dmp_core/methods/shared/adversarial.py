"""Shared by the adversarial methods: settings, patch discriminators, and a training loop that resumes exactly.

Nothing in the loop has random state: a step's batches and noise are functions of (seed, step), so that a
resumed run ends with exactly the weights of one that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dmp_core.errors import InputError
from dmp_core.finite import check_before_writing, check_weights
from dmp_core.methods.shared.settings import AdversarialConfig
from dmp_core.processes import deferred_interrupts
from dmp_core.progress import Progress
from dmp_core.settings import raise_readable
from dmp_core.training.checkpoints import LOG, load_checkpoint, save_checkpoint
from dmp_core.training.logs import StepRecord, TrainingLog
from dmp_core.training.pace import Pace
from dmp_core.training.pairs import ImagePairs
from dmp_core.training.precision import autocast_bf16
from dmp_core.training.trackers import tracked

MODEL = "model"
"""Folder under a fit's `work` that holds the finished model."""

_SETTINGS, _WEIGHTS = "model.json", "model.safetensors"
# Streams of random numbers that must stay independent.
_INIT, _NOISE = 4, 5


# ----------------------------------------------------------------------------- discriminators
def init_spectral(conv: nn.Conv2d) -> nn.Module:
    """The layer under spectral normalisation, its weights first drawn small (Xavier, gain 0.02)."""
    return spectral_norm(init_small(conv))


def init_small(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.xavier_normal_(conv.weight, gain=0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class PatchDiscriminator(nn.Module):
    """Judges patches: logits (B, 1, h, w), positive for "real". Also returns its layers' features, first to last."""

    def __init__(self, channels: int, base: int, layers: int, *, normalise: bool) -> None:
        """layers: convolutions before the last one; all but the last of them halve the size.

        normalise: spectral normalisation in all of these, instance normalisation in all but the first.
        """
        super().__init__()
        wrap: Callable[[nn.Conv2d], nn.Module] = init_spectral if normalise else _plain
        blocks = [nn.Sequential(init_small(_patch_conv(channels, base, 2)), nn.LeakyReLU(0.2))]
        for number in range(1, layers):
            before, after = (base * min(8, 2**power) for power in (number - 1, number))
            stride = 1 if number == layers - 1 else 2
            norm = nn.InstanceNorm2d(after) if normalise else nn.Identity()
            blocks.append(nn.Sequential(wrap(_patch_conv(before, after, stride)), norm, nn.LeakyReLU(0.2)))
        self.blocks = nn.ModuleList(blocks)
        self.last = init_small(_patch_conv(base * min(8, 2 ** (layers - 1)), 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = [images]
        for block in self.blocks:
            features.append(block(features[-1]))
        return self.last(features[-1]), features[1:]


class MultiScaleDiscriminator(nn.Module):
    """One patch discriminator per scale, each scale half the size of the one before."""

    def __init__(self, scales: int, channels: int, base: int, layers: int, *, normalise: bool) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(channels, base, layers, normalise=normalise) for _ in range(scales)
        )

    def forward(self, images: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """(logits, features) of each scale."""
        judged = []
        for number, scale in enumerate(self.scales):
            if number:
                images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
            judged.append(scale(images))
        return judged


def _patch_conv(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride, 2)


def _plain(conv: nn.Conv2d) -> nn.Conv2d:
    return conv


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through these modules but not into their weights."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


# -------------------------------------------------------------------------------------- loop
class AdversarialTrainer:
    """The state of one fit: networks, one Adam per side, and one training step. Subclassed by each method."""

    networks: nn.ModuleDict
    optimizers: dict[str, torch.optim.Adam]

    def __init__(self, config: AdversarialConfig, pairs: ImagePairs, device: str) -> None:
        self.config, self.pairs, self.device = config, pairs, torch.device(device)

    def step(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Update every side once. Returns the generator's loss, its gradient's norm, and the loss's terms."""
        raise NotImplementedError

    def batch(self, step: int, seed: int | None = None) -> tuple[Tensor, Tensor]:
        seed = self.config.seed if seed is None else seed
        x, y = self.pairs.batch(step, self.config.batch_size, seed, self.config.flip)
        return x.to(self.device), y.to(self.device)

    def noise(self, step: int) -> torch.Generator:
        """The step's own random numbers, on the CPU: the same on every device."""
        return torch.Generator().manual_seed(_number(self.config.seed, _NOISE, step))

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast_bf16(self.device, self.config.mixed_precision == "bf16")

    def update(self, side: str, loss: Tensor, max_norm: float = math.inf) -> Tensor:
        """One step of a side's optimiser; returns its gradient's norm before clipping.

        Raises InputError unless the loss and its gradient are finite; the weights are then still intact.
        """
        _check_finite(side, "loss", loss)
        optimizer = self.optimizers[side]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm: Tensor = nn.utils.clip_grad_norm_(parameters, max_norm)
        _check_finite(side, "gradient", norm)
        optimizer.step()
        return norm


def _check_finite(side: str, what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        raise InputError(
            f"training: the {side}'s {what} is {value.item()}; lower its learning rate, or train in full precision. "
            "Checkpoints are kept"
        )


def build_networks(seed: int, build: Callable[[], Mapping[str, nn.Module]]) -> nn.ModuleDict:
    """Networks whose first weights depend on the seed alone; the caller's random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_number(seed, _INIT, 0))
        return nn.ModuleDict(build())


def run(trainer: AdversarialTrainer, method: str, work: Path, progress: Progress) -> None:
    """Train from the last checkpoint to the end, writing checkpoints and `loss.csv` to `work`.

    Raises InputError when the checkpoints belong to another run, or when a loss, a gradient or a weight is not finite.
    """
    config, checkpoints = trainer.config, work / "checkpoints"
    identity = _identity(method, config, trainer.pairs)
    state = load_checkpoint(checkpoints, identity)
    step = _resume(trainer, state)
    table, pace = state.get(LOG) if state else None, Pace(config.steps, step)
    trainer.networks.train()
    with (
        tracked(config, work, step, trainer.device) as track,
        closing(TrainingLog(work, step, config.log_every, table, track)) as log,
        deferred_interrupts() as interrupts,
    ):
        while step < config.steps:
            started = time.monotonic()
            factor = _decay(config, step)
            for optimizer in trainer.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = group["first_lr"] * factor
            loss, norm, terms = trainer.step(step)
            step += 1
            rate = trainer.optimizers["generator"].param_groups[0]["lr"]
            record = StepRecord(step, loss.item(), rate, norm.item(), time.monotonic() - started)
            log.add(record, {name: term.item() for name, term in terms.items()})
            if step % config.checkpoint_every == 0 or step == config.steps or interrupts.number:
                save_checkpoint(checkpoints, step, _state(trainer, step, identity, log))
                interrupts.deliver()
            progress(step, config.steps, f"loss {record.loss:.4f}{pace.step(step)}")
    trainer.networks.eval()


def adam(
    parameters: list[nn.Parameter], rate: float, betas: tuple[float, float], weight_decay: float = 0.0
) -> torch.optim.Adam:
    fused = parameters[0].device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=betas, weight_decay=weight_decay, fused=fused)
    for group in optimizer.param_groups:
        group["first_lr"] = rate
    return optimizer


def _decay(config: AdversarialConfig, step: int) -> float:
    left, whole = 1 - step / config.steps, 1 - config.decay_from
    return min(1.0, left / whole) if whole else 1.0


def _identity(method: str, config: AdversarialConfig, pairs: ImagePairs) -> str:
    """A checkpoint continues a run only if all of this is the same."""
    # How often and where to report or save changes no weight.
    settings = config.model_dump(mode="json", exclude={"checkpoint_every", "log_every", "trackers"})
    text = json.dumps({"method": method, "data": pairs.digest(), **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _state(trainer: AdversarialTrainer, step: int, identity: str, log: TrainingLog) -> dict[str, Any]:
    return {
        "identity": identity,
        "step": step,
        LOG: log.table(),
        "networks": trainer.networks.state_dict(),
        "optimizers": {side: optimizer.state_dict() for side, optimizer in trainer.optimizers.items()},
    }


def _resume(trainer: AdversarialTrainer, state: dict[str, Any] | None) -> int:
    """Steps done by the checkpoint's run."""
    if state is None:
        return 0
    trainer.networks.load_state_dict(state["networks"])
    for side, optimizer in trainer.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][side])
    done: int = state["step"]
    return done


def _number(*parts: int) -> int:
    return int(np.random.default_rng(parts).integers(2**62))


# ------------------------------------------------------------------------------------- models
class Translator(nn.Module):
    """A fitted method: images in, label images out; saved as a folder of settings and weights."""

    method: str
    settings: type[AdversarialConfig]

    def __init__(self, config: AdversarialConfig, multiple: int) -> None:
        """multiple: height and width of the network's input must be multiples of this."""
        super().__init__()
        self.config, self.multiple = config, multiple

    def translate(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Label images (B, 3, H, W) in [-1, 1] of images (B, 3, H, W) in [-1, 1], of any size, on its device.

        Deterministic: no noise is drawn, and no statistic is taken over the batch.
        """
        height, width = images.shape[-2:]
        margins = (0, -width % self.multiple, 0, -height % self.multiple)
        return self.translate(F.pad(images, margins, mode="replicate"))[..., :height, :width]

    def save(self, folder: str | Path) -> None:
        """Write settings and weights."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
        check_before_writing(weights, str(folder / _WEIGHTS))
        save_file(weights, folder / _WEIGHTS)
        card = {"method": self.method, "settings": self.config.recorded()}
        (folder / _SETTINGS).write_text(json.dumps(card, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Self:
        """A saved model, ready to be called. Raises InputError when the folder contains no model of this method."""
        folder = Path(folder)
        try:
            card = json.loads((folder / _SETTINGS).read_text())
            if card["method"] != cls.method:
                raise InputError(f"{folder}: a model of the method {card['method']!r}; expected {cls.method!r}")
            with torch.random.fork_rng(devices=[]):  # initial weights are drawn and then replaced
                model = cls(cls.settings(**card["settings"]))  # type: ignore[call-arg]
            model.load_state_dict(load_file(folder / _WEIGHTS))
            check_weights(model.state_dict(), folder / _WEIGHTS)
        except ValidationError as error:
            raise_readable(error, str(folder / _SETTINGS))
        except (OSError, KeyError, TypeError, json.JSONDecodeError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder}: not a finished {cls.method} model ({reason}); fit it again") from None
        return model.to(device).eval()


def check_size(pairs: ImagePairs, multiple: int) -> None:
    """Training images must fit the network; inference pads instead."""
    if pairs.size[0] % multiple or pairs.size[1] % multiple:
        raise InputError(
            f"images: {pairs.size[0]} × {pairs.size[1]} pixels; height and width must be multiples of {multiple} "
            "for this network: choose another resolution, or fewer halvings"
        )
