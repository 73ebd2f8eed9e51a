"""InstructPix2Pix (Brooks et al. 2023): a diffusion model that edits an image by an instruction.

One layout, that of `timbrooks/instruct-pix2pix`: the U-Net sees the noisy latents and, in as many extra channels, the
image's latents, unscaled. Our own editor at mini scale is trained from the mini prior (`dmp_core.prior.editor`) and
saved in that layout, so that diffusers' pipeline loads and runs both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dmp_core.diffusion import Schedule, decode_latents, fingerprint
from dmp_core.diffusion.process import blend, target_at
from dmp_core.diffusion.text import embed_texts
from dmp_core.errors import InputError
from dmp_core.methods.shared.ddim import drawn_noise, prediction_of
from dmp_core.methods.shared.settings import InstructConfig
from dmp_core.progress import Progress, silent
from dmp_core.training.data import Batch, LatentPairs
from dmp_core.training.loop import FitResult, make_accelerator, train
from dmp_core.training.texts import TextEmbeddings
from dmp_core.training.transfer import to_device
from dmp_core.weights.load import DTYPES

if TYPE_CHECKING:
    from accelerate import Accelerator

# Separate streams of random numbers, independent of those of `dmp_core.training.data`.
NOISE, _DROP = 12, 13


# ------------------------------------------------------------------------------------ the model
def widen_unet(unet: Any) -> Any:
    """A copy of a text-to-image U-Net that takes an image's latents in addition to the noisy ones.

    The new channels start at zero, so that at first its output equals the original's, whatever the image.
    """
    wide = type(unet).from_config({**unet.config, "in_channels": 2 * unet.config.in_channels})
    weights = dict(unet.state_dict())
    kernel = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([kernel, torch.zeros_like(kernel)], dim=1)
    wide.load_state_dict(weights)
    return torch.nn.Module.to(wide, unet.device, unet.dtype)  # diffusers' own warns that no part stays in float32


def editor_from(base: Any, unet: Any) -> Any:
    """Diffusers' InstructPix2Pix pipeline of a widened U-Net and its base's other parts, with DDIM."""
    from diffusers import DDIMScheduler, StableDiffusionInstructPix2PixPipeline

    editor: Any = StableDiffusionInstructPix2PixPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler.from_config(base.scheduler.config, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    editor.set_progress_bar_config(disable=True)
    return editor


# ------------------------------------------------------------------------------------- training
def fit_instruct(
    config: InstructConfig,
    base: Any,
    pairs: LatentPairs,
    instructions: Sequence[str],
    work: str | Path,
    out: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> FitResult:
    """Train an editor from a text-to-image model, or resume a killed run.

    base: of `load_base`; is not changed.
    pairs: latents of the images before (source) and after (target) the edit; instructions: one per pair.
    work: checkpoints and logs, kept. out: the finished editor, a folder for `load_editor`.
    card: what the run is about, e.g. fingerprints of the data.
    """
    accelerator = make_accelerator(config, device)
    about = {
        **(card or {}),
        "method": "instruct",
        "base_fingerprint": fingerprint(base.unet),
        "training": config.recorded(),
        "samples": len(pairs),
    }
    texts = TextEmbeddings(base, instructions, len(pairs), DTYPES[config.mixed_precision], accelerator.device)
    empty = embed_texts(base, [""])[0].to(accelerator.device, texts.embeddings.dtype)
    unet = widen_unet(base.unet).float().requires_grad_(True).train().to(accelerator.device)
    parameters = dict(unet.named_parameters())
    loss = _InstructLoss(config, base, pairs, texts, empty, accelerator)

    def save(folder: Path) -> None:
        editor_from(base, unet.eval().requires_grad_(False)).save_pretrained(folder)

    return train(config, unet, parameters, loss, work, out, about, save, accelerator, progress)


class _InstructLoss:
    """‖ε - U-Net(after_t, t, before, instruction)‖², with each condition dropped at random.

    Dropping both trains the unconditional output that guidance starts from; dropping one, the outputs in between.
    """

    def __init__(
        self,
        config: InstructConfig,
        base: Any,
        pairs: LatentPairs,
        texts: TextEmbeddings,
        empty: Tensor,
        accelerator: Accelerator,
    ) -> None:
        self.seed, self.dropout = config.seed, config.dropout
        self.process = NoisyPairs(base, pairs, config.seed, accelerator)
        self.texts, self.empty = texts, empty

    def __call__(self, network: Any, draw: int) -> Tensor:
        inputs = self.process(draw)
        size = self.process.pairs.batch_size
        chance = torch.from_numpy(np.random.default_rng([self.seed, _DROP, draw]).random(size))
        chance = to_device(self.process.part(chance), inputs.before.device).view(-1, 1, 1)
        # [0, p): no instruction; [p, 2p): neither; [2p, 3p): no image.
        text = torch.where(chance < 2 * self.dropout, self.empty, self.texts(inputs.batch.indices))
        no_image = (chance >= self.dropout) & (chance < 3 * self.dropout)
        before = inputs.before * ~no_image.view(-1, 1, 1, 1)
        return inputs.error(network, before, text)


class NoisyPairs:
    """Training draws of an editor."""

    def __init__(self, editor: Any, pairs: LatentPairs, seed: int, accelerator: Accelerator) -> None:
        self.pairs, self.seed, self.accelerator = pairs, seed, accelerator
        self.schedule = Schedule.from_config(editor.scheduler.config)
        self.prediction = prediction_of(editor.scheduler)
        self.unscale = editor.vae.config.get("scaling_factor") or 1.0

    def part(self, values: Tensor) -> Tensor:
        """This process's share of a batch."""
        return values[self.accelerator.process_index :: self.accelerator.num_processes]

    def __call__(self, draw: int) -> NoisyDraw:
        whole = self.pairs.batch(draw)
        noise = drawn_noise((self.seed, NOISE, draw), (self.pairs.batch_size, *self.pairs.target.shape[2:]))
        batch = whole.part(self.accelerator.process_index, self.accelerator.num_processes)
        return self.draw(batch, self.part(noise))

    def draw(self, batch: Batch, noise: Tensor) -> NoisyDraw:
        device = self.accelerator.device
        before, after = (to_device(latents, device).float() for latents in self.pairs.gather(batch))
        noise, timesteps = to_device(noise, device), to_device(batch.timesteps, device)
        alpha = to_device(self.schedule.alphas(batch.timesteps), device).view(-1, 1, 1, 1)
        target = target_at(after, noise, alpha, self.prediction)
        return NoisyDraw(batch, before / self.unscale, blend(after, noise, alpha), timesteps, target)


class NoisyDraw:
    """before, noisy, target: (B, C, h, w); timesteps: (B,). `before` is unscaled, as the U-Net takes it."""

    def __init__(self, batch: Batch, before: Tensor, noisy: Tensor, timesteps: Tensor, target: Tensor) -> None:
        self.batch, self.before, self.noisy, self.timesteps, self.target = batch, before, noisy, timesteps, target

    def output(self, network: Any, before: Tensor, text: Tensor) -> Tensor:
        """The U-Net's output, float32. text: (B or 1, L, D)."""
        inputs = torch.cat([self.noisy, before], dim=1)
        text = text.expand(len(inputs), -1, -1)
        output: Tensor = network(inputs.to(text.dtype), self.timesteps, encoder_hidden_states=text).sample
        return output.float()

    def error(self, network: Any, before: Tensor, text: Tensor) -> Tensor:
        return F.mse_loss(self.output(network, before, text), self.target)


# ------------------------------------------------------------------------------------ inference
@torch.no_grad()
def edit(
    editor: Any,
    images: Tensor,
    instruction: str | Sequence[str] | Tensor,
    seeds: Sequence[int],
    num_steps: int = 100,
    guidance_scale: float = 7.5,
    image_guidance_scale: float = 1.5,
    noise: Tensor | None = None,
) -> Tensor:
    """Edited images (B, 3, H, W) in [0, 1]; the rest as `edit_latents`."""
    latents = edit_latents(editor, images, instruction, seeds, num_steps, guidance_scale, image_guidance_scale, noise)
    return decode_latents(editor.vae, latents).float().clamp(0, 1)


@torch.no_grad()
def edit_latents(
    editor: Any,
    images: Tensor,
    instruction: str | Sequence[str] | Tensor,
    seeds: Sequence[int],
    num_steps: int = 100,
    guidance_scale: float = 7.5,
    image_guidance_scale: float = 1.5,
    noise: Tensor | None = None,
) -> Tensor:
    """Latents (B, C, h, w) of the edited images, from images (B, 3, H, W) in [0, 1].

    editor: of `load_editor`.
    instruction: one for all images, or one each; or its embedding, (L, D).
    seeds: one per image; equal seeds give equal edits, whatever the batch.
    noise: start all images from this noise, (C, h, w), instead of their seeds'.
    guidance_scale, image_guidance_scale: towards the instruction and the image, both at least 1; with a
        guidance_scale of 1 neither guides, at a third of the cost.

    Raises InputError where the pipeline would silently omit the guidance.
    """
    if image_guidance_scale < 1 or guidance_scale < 1:
        raise InputError(
            f"guidance_scale: {guidance_scale}, image_guidance_scale: {image_guidance_scale}; choose 1 or more of each"
        )
    if len(seeds) != len(images):
        raise InputError(f"seeds: {len(seeds)} for {len(images)} images; give one each")
    embeds = _instruction_embeds(editor, instruction, len(images))
    factor = editor.vae_scale_factor
    shape = (editor.vae.config.latent_channels, images.shape[-2] // factor, images.shape[-1] // factor)
    if noise is not None and noise.shape != shape:
        raise InputError(f"noise: {tuple(noise.shape)} for images of {shape}; edit images of the size trained on")
    # Samplers that add noise in each step draw it from the same generators.
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    start = drawn if noise is None else noise.expand(len(images), *shape)
    without = None if guidance_scale == 1 else embed_texts(editor, [""]).to(editor.device, editor.unet.dtype)
    result = editor(
        prompt_embeds=embeds.to(editor.device, editor.unet.dtype),
        negative_prompt_embeds=None if without is None else without.expand_as(embeds),
        image=images.to(editor.device),
        latents=start.to(editor.device, editor.unet.dtype),
        num_inference_steps=num_steps,
        guidance_scale=guidance_scale,
        image_guidance_scale=image_guidance_scale,
        generator=generators,
        output_type="latent",
    )
    latents: Tensor = result.images
    return latents


def _instruction_embeds(editor: Any, instruction: str | Sequence[str] | Tensor, count: int) -> Tensor:
    """(B, L, D) on the CPU."""
    if isinstance(instruction, Tensor):
        return instruction.detach().cpu().expand(count, -1, -1)
    if isinstance(instruction, str):
        return embed_texts(editor, [instruction]).expand(count, -1, -1)
    if len(instruction) != count:
        raise InputError(f"instruction: {len(instruction)} for {count} images; give one, or one each")
    return embed_texts(editor, instruction)
