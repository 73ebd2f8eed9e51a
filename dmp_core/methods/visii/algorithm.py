"""VISII (Nguyen et al. 2023): invert pairs of before and after into an instruction's embedding, then apply it.

As published: the encoded instruction between its start and end tokens is trained through the guided output
of an editor whose weights do not change. The noise of a timestep is always the same, and inference may start from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dmp_core.diffusion import decode_latents, fingerprint
from dmp_core.diffusion.text import embed_texts, tokenise
from dmp_core.errors import InputError
from dmp_core.finite import check_weights
from dmp_core.methods.shared.ddim import drawn_noise
from dmp_core.methods.shared.editing import NOISE, NoisyPairs
from dmp_core.methods.visii.settings import VisiiFitConfig
from dmp_core.progress import Progress, silent
from dmp_core.training.data import LatentPairs
from dmp_core.training.latents import LatentColumn
from dmp_core.training.loop import FitResult, make_accelerator, train
from dmp_core.weights.resolve import UNREADABLE, resolve_model, why_unreadable

WEIGHTS_FILE = "instruction.safetensors"
# Above this the cosine no longer counts, as published.
_ALIGNED = 0.5


@dataclass(frozen=True)
class LearnedInstruction:
    """embeds: (L, D), for `edit`; noise: (C, h, w), what the last timestep of training used, for `edit` as well."""

    embeds: Tensor
    noise: Tensor


def fit_visii(
    config: VisiiFitConfig,
    editor: Any,
    before: LatentColumn,
    after: LatentColumn,
    initial_instruction: str,
    work: str | Path,
    out: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> FitResult:
    """Optimise an instruction's embedding on the first `config.num_pairs` pairs; resumes as every training does.

    editor: of `load_editor`; is not changed.
    before, after: latents of images and of their label images; flipped ones are ignored.
    initial_instruction: what the embedding starts from; its length is kept.
    out: gets `instruction.safetensors` and `loss.csv`.

    Raises InputError when there are fewer pairs, or when the CLIP model does not fit the editor.
    """
    accelerator = make_accelerator(config, device)
    pairs = _first_pairs(config, before, after, editor)
    about = {
        **(card or {}),
        "method": "visii",
        "base_fingerprint": fingerprint(editor.unet),
        "training": config.recorded(),
        "keys": list(pairs.keys),
        "initial_instruction": initial_instruction,
    }
    network = InstructionPrompt(editor, initial_instruction).to(accelerator.device)
    loss = _VisiiLoss(config, editor, network, pairs, accelerator)

    def save(folder: Path) -> None:
        tensors = {"embeds": network().detach().cpu()[0], "noise": loss.noise_at(pairs.num_timesteps - 1)}
        metadata = {"dmp": json.dumps({"pairs": list(pairs.keys), "started_from": initial_instruction})}
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / WEIGHTS_FILE, metadata)

    parameters = {"words": network.words}
    return train(config, network, parameters, loss, work, out, about, save, accelerator, progress)


def load_instruction(folder: str | Path) -> LearnedInstruction:
    """What `fit_visii` wrote. Raises InputError when it is missing."""
    file = Path(folder) / WEIGHTS_FILE
    try:
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in ("embeds", "noise")}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: no learned instruction here ({error}); fit it first") from None
    check_weights(tensors, file)
    return LearnedInstruction(**tensors)


class InstructionPrompt(nn.Module):
    """An encoded instruction: words are trained, start and end tokens are not; calling it gives (1, L, D)."""

    start: Tensor
    end: Tensor

    def __init__(self, editor: Any, instruction: str) -> None:
        super().__init__()
        tokens = editor.tokenizer(instruction, add_special_tokens=False).input_ids
        length = tokenise(editor.tokenizer, [instruction]).shape[1]
        self.words_end = 1 + min(len(tokens), length - 2)
        if self.words_end == 1:
            raise InputError("initial_instructions: empty; give some words, whose embeddings are trained")
        embeds = embed_texts(editor, [instruction]).float()
        self.unet = editor.unet.requires_grad_(False).eval()
        self.words = nn.Parameter(embeds[:, 1 : self.words_end].clone())
        self.register_buffer("start", embeds[:, :1], persistent=False)
        self.register_buffer("end", embeds[:, self.words_end :], persistent=False)

    def forward(self) -> Tensor:
        return torch.cat([self.start, self.words, self.end], dim=1)


class _VisiiLoss:
    """mse_weight · ‖ε - ε̂‖² - clip_weight · cos(after - before, instruction), the latter in CLIP's space."""

    def __init__(
        self, config: VisiiFitConfig, editor: Any, network: InstructionPrompt, pairs: LatentPairs, accelerator: Any
    ) -> None:
        self.config = config
        self.network = network
        self.process = NoisyPairs(editor, pairs, config.seed, accelerator)
        self.empty = embed_texts(editor, [""])
        self.clip = _ClipDirection(config, editor, pairs, accelerator.device) if config.clip_model else None

    def noise_at(self, timestep: int) -> Tensor:
        """(C, h, w), the same in every draw of the timestep."""
        return drawn_noise((self.config.seed, NOISE, timestep), self.process.pairs.target.shape[2:])

    def __call__(self, wrapped: Any, draw: int) -> Tensor:
        pairs, accelerator = self.process.pairs, self.process.accelerator
        batch = pairs.batch(draw).part(accelerator.process_index, accelerator.num_processes)
        noise = torch.stack([self.noise_at(int(t)) for t in batch.timesteps])
        inputs = self.process.draw(batch, noise)
        embeds = wrapped()
        loss = self.config.mse_weight * F.mse_loss(self._guided(inputs, embeds), inputs.target)
        if self.clip is not None:
            loss = loss - self.config.clip_weight * self.clip(embeds).clamp(-1, _ALIGNED)
        return loss

    def _guided(self, inputs: Any, embeds: Tensor) -> Tensor:
        unet, dtype = self.network.unet, self.network.unet.dtype
        embeds, nothing = embeds.to(dtype), torch.zeros_like(inputs.before)
        text, image = self.config.guidance_scale, self.config.image_guidance_scale
        full: Tensor = inputs.output(unet, inputs.before, embeds)
        if text == 1 and image == 1:
            return full
        with torch.no_grad():  # neither of these depends on what is trained
            empty = self.empty.to(dtype)
            of_image = inputs.output(unet, inputs.before, empty)
            of_nothing = inputs.output(unet, nothing, empty)
        return of_nothing + text * (full - of_image) + image * (of_image - of_nothing)


class _ClipDirection:
    """Cosine of the instruction's projected mean embedding and the pairs' mean difference."""

    def __init__(self, config: VisiiFitConfig, editor: Any, pairs: LatentPairs, device: torch.device) -> None:
        from transformers import CLIPModel, CLIPProcessor

        located = resolve_model(str(config.clip_model), "fit.clip_model")
        try:
            model: Any = CLIPModel.from_pretrained(located.place, **located.options)
            processor: Any = CLIPProcessor.from_pretrained(located.place, **located.options)
        except UNREADABLE as error:
            reason = why_unreadable(error)
            raise InputError(f"fit.clip_model: {config.clip_model}: not a CLIP model ({reason})") from None
        width = editor.text_encoder.config.hidden_size
        if model.text_projection.in_features != width:
            raise InputError(
                f"fit.clip_model: {config.clip_model}: its text encoder is {model.text_projection.in_features} wide, "
                f"the editor's {width}; give the CLIP model that the editor's text encoder comes from"
            )
        self.projection = model.text_projection.to(device).requires_grad_(False)
        model.to(device).eval()
        before, after = (
            _image_embeds(model, processor, editor, column[0][:]) for column in (pairs.source, pairs.target)
        )
        self.direction = F.normalize((after.mean(0) - before.mean(0)), dim=0)

    def __call__(self, embeds: Tensor) -> Tensor:
        projected = F.normalize(self.projection(embeds[0].float().mean(0)), dim=0)
        return projected @ self.direction


@torch.no_grad()
def _image_embeds(model: Any, processor: Any, editor: Any, latents: Tensor, batch_size: int = 16) -> Tensor:
    """(N, D) of the images behind latents (N, C, h, w)."""
    found = []
    for part in latents.split(batch_size):
        images = decode_latents(editor.vae, part).float().clamp(0, 1)
        inputs = processor(images=list(images.cpu()), return_tensors="pt", do_rescale=False)
        pooled = model.vision_model(inputs.pixel_values.to(model.device)).pooler_output
        found.append(model.visual_projection(pooled))
    return torch.cat(found)


def _first_pairs(config: VisiiFitConfig, before: LatentColumn, after: LatentColumn, editor: Any) -> LatentPairs:
    count = len(before.keys) if config.num_pairs is None else config.num_pairs
    if count > len(before.keys):
        raise InputError(f"fit.num_pairs: {count}, but there are only {len(before.keys)} pairs; choose fewer")
    source, target = (
        replace(column, keys=column.keys[:count], plain=column.plain[:count], flipped=None)
        for column in (before, after)
    )
    return LatentPairs(
        source, target, config.batch_size, config.seed, num_timesteps=editor.scheduler.config.num_train_timesteps
    )
