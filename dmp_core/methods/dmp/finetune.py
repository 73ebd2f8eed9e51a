"""The trainer: fine-tune the prior, by LoRA or as a whole, to morph images back into labels (§3.2, eq. 2-3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmp_core.diffusion import (
    Schedule,
    add_lora,
    base_digests,
    downscale_factor,
    fingerprint,
    lora_parameters,
    reset_weights,
    save_adapter,
    save_unet,
)
from dmp_core.diffusion.latents import decode_latents
from dmp_core.diffusion.process import blend, estimate_x, estimate_y, target_at
from dmp_core.diffusion.sampler import unet_denoiser
from dmp_core.errors import InputError
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.modalities import Code, Modality, modality_of
from dmp_core.modalities.classes import ClassMap
from dmp_core.progress import Progress, silent
from dmp_core.training.data import Batch, ClassWeights, LabelImages, LatentPairs
from dmp_core.training.loop import FitResult, make_accelerator, train
from dmp_core.training.precision import fast_kernels, matrix_products
from dmp_core.training.texts import TextEmbeddings
from dmp_core.training.transfer import to_device
from dmp_core.weights.load import DTYPES

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dmp_core.diffusion import DMPPipeline


def finetune(
    config: TrainConfig,
    base: DMPPipeline,
    pairs: LatentPairs,
    work: str | Path,
    out: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    prompts: Sequence[str] | None = None,
    labels: LabelImages | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> FitResult:
    """Train an adapter, or resume a killed run, which ends with the same weights.

    base: of `load_base`; its U-Net gets LoRA layers (call `dmp_core.diffusion.remove_adapter` to take
        them out again), or, with `weights: all`, is itself changed.
    pairs: image and label latents, batch size and seed.
    work: checkpoints, `loss.csv` and TensorBoard files go here; kept between runs.
    out: the finished adapter goes here: a PEFT folder or the whole U-Net, `dmp.json`, and a copy of `loss.csv`.
    card: what the run is about, for `dmp.json`: modality, sampling defaults, label encoding, data
        fingerprints (see `make_card`).
    prompts: one caption per sample, in the order of `pairs.keys`; needed if `config.use_prompt`.
    labels: in the same order, of the size that latents decode to; needed if `config.reads_labels`.
    progress: called after every optimiser step with a message that names the loss.

    Several processes (`dmp_core.training.ranks`) share each batch. Raises InputError when nothing would be
    trained, when checkpoints belong to another run, or when the loss is not finite.
    """
    accelerator = make_accelerator(config, device)
    about = _complete_card(dict(card or {}), config, base, pairs)  # before LoRA is added
    identified = about | base_digests(base.unet, base.vae)  # not in `about`, which identifies older checkpoints
    loss = MorphingLoss(config, base, pairs, prompts, labels, accelerator)
    unet = base.unet.to(accelerator.device)
    parameters = _trainable(unet, config)
    unet.train()
    if config.compile:
        unet.compile_repeated_blocks()
    precision = DTYPES[config.mixed_precision]

    def save(folder: Path) -> None:
        if config.weights == "all":
            save_unet(unet, folder, identified, precision)
        else:
            save_adapter(unet, folder, identified)

    positions = math.prod(pairs.source.shape[-2:])
    with fast_kernels((unet, base.vae), accelerator.device, precision, positions), matrix_products(config.tf32):
        return train(config, unet, parameters, loss, work, out, about, save, accelerator, progress)


class MorphingLoss:
    """‖target(x, y, t) - U-Net(y_t, t)‖², the mean over everything (eq. 3); or, `decoded`, ‖label - decoded output‖."""

    def __init__(
        self,
        config: TrainConfig,
        base: DMPPipeline,
        pairs: LatentPairs,
        prompts: Sequence[str] | None,
        labels: LabelImages | None,
        accelerator: Accelerator,
    ) -> None:
        if config.reads_labels and (labels is None or len(labels.codes) != len(pairs)):
            raise InputError(f"train.loss: decoded needs one label image per sample ({len(pairs)})")
        self.config = config
        self.pairs = pairs
        self.labels = labels
        self.class_weights: ClassWeights | None = None
        if labels is not None and _weighs(labels, config):
            self.class_weights = ClassWeights(labels, config.class_balance)
        self.accelerator = accelerator
        self.vae = base.vae.to(accelerator.device).requires_grad_(False) if config.loss == "decoded" else None
        self.schedule = Schedule.from_config(base.scheduler.config, **config.schedule.model_dump())
        self.timesteps = _trained_timesteps(self.schedule, config.num_timesteps)
        precision = DTYPES[config.mixed_precision]
        self.dtype = torch.float32 if config.weights == "all" else precision
        self.texts = TextEmbeddings(
            base, prompts if config.use_prompt else None, len(pairs), precision, accelerator.device
        )
        if config.use_prompt and not self.texts.per_sample:
            raise InputError(f"train.use_prompt: needs one prompt per sample ({len(pairs)}), found none")

    def __call__(self, network: Any, draw: int) -> Tensor:
        batch = self.pairs.batch(draw).part(self.accelerator.process_index, self.accelerator.num_processes)
        device = self.accelerator.device
        x, y = (to_device(latents, device).float() for latents in self.pairs.gather(batch))
        # The draw is uniform over the whole schedule; the timesteps trained at share it evenly.
        drawn = self.timesteps[batch.timesteps * len(self.timesteps) // self.schedule.num_train_timesteps]
        alpha = to_device(self.schedule.alphas(drawn), device).view(-1, 1, 1, 1)
        timesteps = to_device(drawn, device)
        if self.config.num_timesteps is not None:
            # At the first timestep, the source for which eq. 2 gives x: samplers start at x, with no label blended in.
            first = to_device(drawn == self.timesteps[-1], device).view(-1, 1, 1, 1)
            x = torch.where(first, estimate_x(x, y, alpha, "y"), x)
        y_t = blend(y, x, alpha)
        output = unet_denoiser(network, self.texts(batch.indices))(y_t.to(self.dtype), timesteps).float()
        if self.config.loss == "latents":
            return F.mse_loss(output, target_at(y, x, alpha, self.config.prediction))
        return self._decoded(estimate_y(y_t, output, alpha, self.config.prediction), batch)

    def _decoded(self, y: Tensor, batch: Batch) -> Tensor:
        """Mean difference of the images decoded from estimated label latents and the true ones, per pixel."""
        assert self.labels is not None, "checked above"
        codes = self.labels.gather(batch)
        error = decode_latents(self.vae, y).float() - to_device(torch.from_numpy(codes), y.device) / 255
        if modality_of(self.labels.modality).has_classes and self.config.colour_error == "l2":
            error = torch.linalg.vector_norm(error, dim=1, keepdim=True) / error.shape[1] ** 0.5
        else:
            error = error.abs()
        if self.class_weights is not None:
            error = error * to_device(torch.from_numpy(self.class_weights(codes)), y.device)
        return error.mean()


def _weighs(labels: LabelImages, config: TrainConfig) -> bool:
    modality = modality_of(labels.modality)
    return isinstance(modality, ClassMap) and (config.class_balance > 0 or bool(modality.weights))


def _trainable(unet: Any, config: TrainConfig) -> dict[str, nn.Parameter]:
    """Make the U-Net ready to be trained; returns the trained parameters: LoRA layers, or all.

    Trained weights are float32 whatever the precision; frozen ones are kept in it.
    """
    if config.weights == "all":
        torch.nn.Module.to(unet, torch.float32)
        if config.init == "random":
            reset_weights(unet, config.seed)
        return dict(unet.requires_grad_(True).named_parameters())
    if unet.dtype != DTYPES[config.mixed_precision]:
        unet.to(DTYPES[config.mixed_precision])
    add_lora(unet, config.lora.rank, config.lora.alpha, config.lora.targets, seed=config.seed)
    return dict(lora_parameters(unet))


def _trained_timesteps(schedule: Schedule, num_steps: int | None) -> Tensor:
    """Ascending: all of the schedule's, or those of a sampler of `num_steps`."""
    return torch.arange(schedule.num_train_timesteps) if num_steps is None else schedule.timesteps(num_steps).flip(0)


# -------------------------------------------------------------------------------------- card
def make_card(
    modality: Modality | str,
    base_name: str,
    *,
    code: Code | None = None,
    classes: Sequence[int] | None = None,
    class_shares: Sequence[float] | None = None,
    sampling: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The part of `dmp.json` that the trainer does not have: the labels' encoding and origin.

    classes: ids in the training labels, which a class map is decoded among.
    class_shares: in the same order, the share of the labelled pixels that each covers.
    sampling: `num_steps` and `source` that the adapter should be run with by default.
    data: fingerprints of the latents and of the other inputs.
    """
    modality = modality_of(modality)
    encoding: dict[str, Any] = {"mode": "RGB", "scale": 1.0, "axes": None, "palette": None}
    encoding |= modality.encoding(code or Code())
    known = {"class_ids": classes, "class_shares": class_shares}
    encoding |= {name: list(values) for name, values in known.items() if values is not None}
    return {
        "task": modality.name,
        **({"own_modality": dict(modality.description)} if modality.description else {}),
        "base": base_name,
        "encoding": encoding,
        "source": sampling["source"],
        "num_steps": sampling["num_steps"],
        "data": dict(data or {}),
    }


def _complete_card(card: dict[str, Any], config: TrainConfig, base: DMPPipeline, pairs: LatentPairs) -> dict[str, Any]:
    """The caller's part plus the run's own settings."""
    return {
        **card,
        "method": config.method,
        "prediction": config.prediction,
        "schedule": config.schedule.model_dump(mode="json"),
        "resolution": min(pairs.source.shape[-2:]) * downscale_factor(base.vae),
        "base_fingerprint": fingerprint(base.unet),
        "vae_fingerprint": fingerprint(base.vae),
        "training": config.recorded(),
        "samples": len(pairs),
        "flip": pairs.can_flip,
    }
