"""Inference over arrays: images to labels, and labels through the VAE and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmp_core.diffusion.adapters import find_adapter
from dmp_core.diffusion.card import Encoding, read_card
from dmp_core.diffusion.labels import decode, working_images
from dmp_core.diffusion.schedule import Schedule
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality, modality_of
from dmp_core.modalities.base import Classes
from dmp_core.training.data import mirrored
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig

if TYPE_CHECKING:
    from dmp_core.diffusion import DMPPipeline

Array = NDArray[Any]


def load_predictor(
    config: BaseConfig,
    adapter: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    *,
    modality: Modality | None = None,
    code: Code | None = None,
) -> DMPPipeline:
    """The base model with an adapter on it, ready for `predict_batch`.

    dtype: "float32", "float16" or "bfloat16".
    modality, code: what it will have to predict; None is not checked.

    Raises InputError when either cannot be read, when the adapter belongs to another base model, and when its card
    contradicts modality or code.
    """
    if modality is not None:
        read_card(find_adapter(adapter).parent).check(adapter, modality, code)
    pipeline = load_base(config, device, getattr(torch, dtype))
    pipeline.load_adapter(adapter)
    pipeline.unet.to(device)
    return pipeline


def predict_batch(
    pipeline: DMPPipeline,
    images: Array,
    modality: Modality | str,
    sampling: SamplingConfig,
    *,
    code: Code | None = None,
    resolution: int | None = None,
    prompts: Sequence[str] | None = None,
) -> Array:
    """Labels of a batch of images, in the images' size and in the units of `dmp_core.modalities`.

    images: uint8 (B, H, W, 3).
    code: how label images are read, where the adapter's card does not state it; None: the configuration's defaults.
    resolution: shorter side at which the network works; None takes the images' own.
    prompts: one caption per image; used only if `sampling.use_prompt`.
    The adapter's card decides what the network predicts, on which schedule (`dmp.json`), except `sampling.spacing`,
    and among which classes. Raises InputError when `sampling` needs prompts or class shares that are missing.
    """
    modality = modality_of(modality)
    sampling = sampling.for_modality(modality)
    if sampling.use_prompt and (prompts is None or len(prompts) != len(images)):
        raise InputError(f"sampling.use_prompt: needs one prompt per image ({len(images)})")
    classes = _classes(pipeline.card.encoding, sampling)
    code = replace(code or Code(), **pipeline.card.code_of(modality))
    working = working_images(pipeline.vae, images, resolution)
    decoded = _predict(pipeline, working, sampling, prompts)
    if sampling.mirrored:
        other = _predict(pipeline, working.flip(-1), sampling, prompts).cpu().numpy()
        back = mirrored(other, modality, np.ones(len(other), dtype=np.bool_))
        decoded = (decoded.cpu() + torch.from_numpy(back)) / 2
    return modality.from_image_at(decoded, images.shape[1:3], code, classes=classes, noise=sampling.colour_noise)


def _predict(
    pipeline: DMPPipeline, images: torch.Tensor, sampling: SamplingConfig, prompts: Sequence[str] | None
) -> torch.Tensor:
    """Label images (B, 3, h, w), nominally in [-1, 1], of images (B, 3, h, w) in [-1, 1]."""
    _, latents = pipeline(
        images / 2 + 0.5,
        prompt=list(prompts) if sampling.use_prompt and prompts is not None else None,
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_scale,
        source=sampling.source,
        schedule=_schedule(pipeline, sampling),
        resolution="input",
        output_type="latent",
        return_dict=False,
    )
    return decode(pipeline.vae, latents)


def _classes(encoding: Encoding, sampling: SamplingConfig) -> Classes:
    """The adapter's, with their shares where `sampling.colour_noise` needs them."""
    if sampling.colour_noise is None:
        return encoding.class_ids
    if encoding.class_ids is None or encoding.class_shares is None:
        raise InputError(
            "sampling.colour_noise: the adapter's dmp.json states no class_shares; train it again, or omit this setting"
        )
    return dict(zip(encoding.class_ids, encoding.class_shares, strict=True))


def _schedule(pipeline: DMPPipeline, sampling: SamplingConfig) -> Schedule | None:
    """The adapter's, at other timesteps; None: the adapter's."""
    if sampling.spacing is None:
        return None
    return Schedule.from_config(
        pipeline.scheduler.config, **pipeline.card.schedule.model_dump() | {"spacing": sampling.spacing}
    )
