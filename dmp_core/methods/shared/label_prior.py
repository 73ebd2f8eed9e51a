"""The prior fine-tuned on label images with ordinary noise (eq. 1): SDEdit and DDIB generate with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dmp_core.diffusion import (
    Schedule,
    add_lora,
    fingerprint,
    load_adapter,
    lora_parameters,
    save_adapter,
)
from dmp_core.diffusion.adapters import base_digests, check_base_model, note_identity
from dmp_core.diffusion.card import CARD_FILE, read_card
from dmp_core.diffusion.process import blend, target_at
from dmp_core.diffusion.sampler import unet_denoiser
from dmp_core.diffusion.text import embed_texts
from dmp_core.errors import InputError
from dmp_core.finite import check_parts
from dmp_core.methods.shared.ddim import drawn_noise, prediction_of
from dmp_core.methods.shared.settings import LabelPriorConfig
from dmp_core.progress import Progress, silent
from dmp_core.training.data import LatentPairs
from dmp_core.training.latents import LatentColumn
from dmp_core.training.loop import FitResult, make_accelerator, train
from dmp_core.training.texts import TextEmbeddings
from dmp_core.training.transfer import to_device
from dmp_core.weights.load import DTYPES

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dmp_core.diffusion import DMPPipeline

UNET_FOLDER = "unet"
# A separate stream of random numbers, independent of those of `dmp_core.training.data`.
_NOISE = 11


def fit_label_prior(
    config: LabelPriorConfig,
    base: DMPPipeline,
    labels: LatentColumn,
    work: str | Path,
    out: str | Path,
    *,
    prompts: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> FitResult:
    """Fine-tune the prior on label images, or resume a killed run, which ends with the same weights.

    base: of `load_base`; its U-Net is not changed, a copy is trained.
    labels: latents of label images, plain and, if encoded, flipped.
    work: checkpoints and logs, kept. out: a PEFT folder, or one with the whole U-Net in `unet`; and `dmp.json`.
    prompts: one caption per sample, in the order of `labels.keys`; needed if `config.use_prompt`.
    card: what the run is about: modality, encoding, fingerprints of the data.

    Raises InputError as `dmp_core.training.loop.fit` does.
    """
    if config.use_prompt and prompts is None:
        raise InputError(f"fit.use_prompt: needs one prompt per sample ({len(labels.keys)}), found none")
    accelerator = make_accelerator(config, device)
    about = _about(dict(card or {}), config, base, labels)
    pairs = LatentPairs(labels, labels, config.batch_size, config.seed, base.scheduler.config.num_train_timesteps)
    precision = DTYPES[config.mixed_precision]
    texts = TextEmbeddings(base, prompts if config.use_prompt else None, len(pairs), precision, accelerator.device)
    loss = _NoiseLoss(config, base.scheduler, pairs, texts, accelerator)
    unet = _trainable_copy(base.unet, config).to(accelerator.device)
    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    known = about | base_digests(base.unet, base.vae)
    return train(
        config, unet, parameters, loss, work, out, about, partial(_save, unet, config, known), accelerator, progress
    )


def load_label_prior(base: DMPPipeline, folder: str | Path) -> Any:
    """The fine-tuned U-Net, separate from the base model's own, which is not changed.

    Raises InputError when the folder contains none, or one of another base model.
    """
    folder = Path(folder)
    if not (folder / UNET_FOLDER).is_dir():
        unet = _copy(base.unet)
        load_adapter(unet, folder, vae=base.vae)
        return unet.to(base.unet.device).eval()
    check_base_model(read_card(folder), folder, base.unet, base.vae)
    loaded = type(base.unet).from_pretrained(folder / UNET_FOLDER, torch_dtype=base.unet.dtype, local_files_only=True)
    check_parts({UNET_FOLDER: loaded}, folder)
    return loaded.to(base.unet.device).eval()


class _NoiseLoss:
    """‖target - U-Net(√ᾱ_t y + √(1 - ᾱ_t) ε, t)‖², ε ordinary noise: eq. 1 with the usual objective."""

    def __init__(
        self,
        config: LabelPriorConfig,
        scheduler: Any,
        pairs: LatentPairs,
        texts: TextEmbeddings,
        accelerator: Accelerator,
    ) -> None:
        self.seed = config.seed
        self.dtype = DTYPES[config.mixed_precision]
        self.schedule = Schedule.from_config(scheduler.config)
        self.prediction = prediction_of(scheduler)
        self.pairs, self.texts, self.accelerator = pairs, texts, accelerator

    def __call__(self, network: Any, draw: int) -> Tensor:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        device = self.accelerator.device
        whole = self.pairs.batch(draw)
        noise = drawn_noise((self.seed, _NOISE, draw), (len(whole.indices), *self.pairs.target.shape[2:]))
        noise = to_device(noise[rank::world], device)
        batch = whole.part(rank, world)
        y = to_device(self.pairs.gather(batch)[1], device).float()
        alpha = to_device(self.schedule.alphas(batch.timesteps), device).view(-1, 1, 1, 1)
        text = self.texts(batch.indices).expand(len(y), -1, -1)
        noisy = blend(y, noise, alpha).to(self.dtype)
        output = network(noisy, to_device(batch.timesteps, device), encoder_hidden_states=text).sample
        return F.mse_loss(output.float(), target_at(y, noise, alpha, self.prediction))


def _trainable_copy(unet: Any, config: LabelPriorConfig) -> Any:
    unet = _copy(unet)
    if config.weights == "all":
        # Mixed precision is then left to autocast: half-precision master weights would lose small updates.
        return unet.float().requires_grad_(True).train()
    torch.nn.Module.to(unet, DTYPES[config.mixed_precision])
    add_lora(unet, config.lora.rank, config.lora.alpha, config.lora.targets, seed=config.seed)
    for _, parameter in lora_parameters(unet):
        parameter.requires_grad_(True)
    return unet.train()


def _copy(unet: Any) -> Any:
    if getattr(unet, "peft_config", None):
        raise InputError("unet: it already carries an adapter; load the base model again, or remove_adapter() first")
    note_identity(unet)
    return copy.deepcopy(unet)


def _save(unet: Any, config: LabelPriorConfig, about: dict[str, Any], out: Path) -> None:
    if config.weights == "lora":
        save_adapter(unet, out, about)
        return
    unet.save_pretrained(out / UNET_FOLDER)
    (out / CARD_FILE).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _about(card: dict[str, Any], config: LabelPriorConfig, base: DMPPipeline, labels: LatentColumn) -> dict[str, Any]:
    return {
        **card,
        "method": "label_prior",
        "prediction": prediction_of(base.scheduler),
        "base_fingerprint": fingerprint(base.unet),
        "vae_fingerprint": fingerprint(base.vae),
        "training": config.recorded(),
        "samples": len(labels.keys),
        "flip": labels.flipped is not None,
    }


def text_denoiser(base: DMPPipeline, unet: Any, prompts: Sequence[str] | None) -> Any:
    """A U-Net as a denoiser of float32 latents, conditioned on captions or on the empty prompt."""
    embeds = embed_texts(base, [""] if prompts is None else prompts).to(unet.device, unet.dtype)
    denoise = unet_denoiser(unet, embeds)
    return lambda latents, t: denoise(latents.to(unet.dtype), t).float()
