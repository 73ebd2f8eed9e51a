"""Deterministic diffusion: schedule, process (eq. 2-3), sampler (eq. 4), adapters, pipeline.

What may live here: the mathematics of DMP as pure functions of tensors, and the thin shell that
runs it on a pre-trained model. No training loop, no data set, no metric.

``DMPPipeline`` and the adapter functions pull in diffusers and peft, so they load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmp_core.diffusion.latents import decode_latents, depth_from_decoded, downscale_factor, encode_images
from dmp_core.diffusion.process import interpolate, training_target
from dmp_core.diffusion.sampler import sample, unet_denoiser
from dmp_core.diffusion.schedule import Schedule

if TYPE_CHECKING:
    from dmp_core.config.card import AdapterCard, read_card
    from dmp_core.diffusion.adapters import (
        add_lora,
        base_digests,
        export_diffusers_lora,
        fingerprint,
        load_adapter,
        lora_parameters,
        remove_adapter,
        reset_weights,
        save_adapter,
        save_unet,
    )
    from dmp_core.diffusion.pipeline import DMPOutput, DMPPipeline

__all__ = [
    "AdapterCard",
    "DMPOutput",
    "DMPPipeline",
    "Schedule",
    "add_lora",
    "base_digests",
    "decode_latents",
    "depth_from_decoded",
    "downscale_factor",
    "encode_images",
    "export_diffusers_lora",
    "fingerprint",
    "interpolate",
    "load_adapter",
    "lora_parameters",
    "read_card",
    "remove_adapter",
    "reset_weights",
    "sample",
    "save_adapter",
    "save_unet",
    "training_target",
    "unet_denoiser",
]

_LAZY = {name: "pipeline" for name in ("DMPOutput", "DMPPipeline")} | {
    name: "adapters"
    for name in (
        "AdapterCard",
        "add_lora",
        "base_digests",
        "export_diffusers_lora",
        "fingerprint",
        "load_adapter",
        "lora_parameters",
        "read_card",
        "remove_adapter",
        "reset_weights",
        "save_adapter",
        "save_unet",
    )
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
