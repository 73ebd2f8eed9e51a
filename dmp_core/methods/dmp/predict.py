"""Inference over arrays: images to labels, and labels through the VAE and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from dmp_core.diffusion.adapters import UNET_FILE, find_adapter
from dmp_core.diffusion.card import read_card
from dmp_core.diffusion.labels import Predicted, predict_labels, working_images
from dmp_core.diffusion.latents import downscale_factor
from dmp_core.diffusion.schedule import Schedule
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.diffusion.tiles import Tiles
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality, modality_of
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig

if TYPE_CHECKING:
    from dmp_core.diffusion import DMPPipeline
    from dmp_core.diffusion.pipeline import Encode

Array = NDArray[Any]


def load_predictor(
    config: BaseConfig,
    adapter: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    *,
    modality: Modality | None = None,
    code: Code | None = None,
    compiled: bool = False,
    decoder: str | None = None,
) -> DMPPipeline:
    """The base model with an adapter on it, ready for `predict_batch`.

    dtype: "float32", "float16" or "bfloat16".
    modality, code: what it will have to predict; None is not checked.
    decoder: `sampling.decoder`.

    Raises InputError when either cannot be read, when the adapter belongs to another base model, and when its card
    contradicts modality or code.
    """
    if modality is not None:
        read_card(find_adapter(adapter).parent).check(adapter, modality, code)
    pipeline = load_base(config, device, getattr(torch, dtype), decoder)
    pipeline.load_adapter(adapter)
    pipeline.unet.to(device)
    if compiled:
        pipeline.unet.compile_repeated_blocks()
    return pipeline


def with_adapter(base: DMPPipeline, adapter: str | Path, *, compiled: bool = False) -> DMPPipeline:
    """Another pipeline with an adapter on it, which shares all weights of the base model; `base` stays as it is.

    A whole U-Net, which replaces the base model's, shares only the other networks. Errors as `load_predictor`.
    """
    whole = find_adapter(adapter).name == UNET_FILE
    shared: dict[int, Any] = {}
    if not whole:
        shared = {id(tensor): tensor for tensor in (*base.unet.parameters(), *base.unet.buffers())}
    parts = base.components | {"unet": copy.deepcopy(base.unet, shared)}
    pipeline = type(base)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_adapter(adapter)
    pipeline.unet.to(base.device)
    if compiled:
        pipeline.unet.compile_repeated_blocks()
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
    found = predict_all(pipeline, images, modality, sampling, code=code, resolution=resolution, prompts=prompts)
    return found.labels


def predict_all(
    pipeline: DMPPipeline,
    images: Array,
    modality: Modality | str,
    sampling: SamplingConfig,
    *,
    code: Code | None = None,
    resolution: int | None = None,
    prompts: Sequence[str] | None = None,
    encode: Encode | None = None,
    pixels: torch.Tensor | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    difference: bool = False,
) -> Predicted:
    """As `predict_batch`, with all that is known of the prediction.

    encode: see `SharedLatents`; None: the pipeline's own VAE.
    pixels: the images' `working_images` at this resolution; None: they are made.
    tile, overlap: of the images at their working size, pixels; None: in one piece, and a fourth of the tile.
    difference: see `predict_labels`.
    """
    modality = modality_of(modality)
    sampling = sampling.for_modality(modality)
    if sampling.use_prompt and (prompts is None or len(prompts) != len(images)):
        raise InputError(f"sampling.use_prompt: needs one prompt per image ({len(images)})")
    captions = list(prompts) if sampling.use_prompt and prompts is not None else None
    with pipeline.running(
        prompt=captions,
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_scale,
        source=sampling.source,
        schedule=_schedule(pipeline, sampling),
        encode=encode,
    ) as latents_of:
        return predict_labels(
            pipeline.decoding,
            latents_of,
            working_images(pipeline.vae, images, resolution) if pixels is None else pixels,
            images.shape[1:3],
            modality,
            replace(code or Code(), **pipeline.card.code_of(modality)),
            classes=pipeline.card.encoding.classes(sampling.colour_noise),
            both_ways=sampling.mirrored,
            colour_noise=sampling.colour_noise,
            difference=difference,
            tiles=None if tile is None else Tiles.of(tile, overlap, downscale_factor(pipeline.vae)),
        )


def _schedule(pipeline: DMPPipeline, sampling: SamplingConfig) -> Schedule | None:
    """The adapter's, at other timesteps; None: the adapter's."""
    if sampling.spacing is None:
        return None
    return Schedule.from_config(
        pipeline.scheduler.config, **pipeline.card.schedule.model_dump() | {"spacing": sampling.spacing}
    )
