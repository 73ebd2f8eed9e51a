"""Deterministic diffusion: schedule, process (eq. 2-3), sampler (eq. 4), adapters, pipeline.

What belongs here: the mathematics of DMP as pure functions of tensors, the thin shell that runs it on a pre-trained
model, and the VAE between labels and latents. No training loop, no data set, no metric.

Everything loads on first use: settings and cards are read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from dmp_core.diffusion.card import AdapterCard, read_card
    from dmp_core.diffusion.latents import decode_latents, depth_from_decoded, downscale_factor, encode_images
    from dmp_core.diffusion.pipeline import DMPOutput, DMPPipeline
    from dmp_core.diffusion.process import interpolate, training_target
    from dmp_core.diffusion.sampler import sample, unet_denoiser
    from dmp_core.diffusion.schedule import Schedule

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

_HOMES = {
    "card": "AdapterCard read_card",
    "latents": "decode_latents depth_from_decoded downscale_factor encode_images",
    "pipeline": "DMPOutput DMPPipeline",
    "process": "interpolate training_target",
    "sampler": "sample unet_denoiser",
    "schedule": "Schedule",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'adapters')}"), name)
