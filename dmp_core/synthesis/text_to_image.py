"""Checks that a model makes images from text, by its small files: no weights, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.weights.resolve import registered, resolve_folder

_INDEX = "model_index.json"


def check_text_to_image(settings: DiffusionImages) -> None:
    """Check that a local or shipped model fits the images stage; registry and hub ids are not checked, so that planning
    works before the download.

    Raises InputError when the folder is missing or not a text-to-image model in diffusers format, lacks the safety
    checker that its index lists, or does not make images of this resolution.
    """
    if registered(settings.model, settings.revision) is not None:
        return
    folder = resolve_folder(settings.model, "priors", settings.revision, field="images.model")
    if folder is None:
        return
    if not (folder / _INDEX).is_file():
        raise InputError(f"images.model: {folder}: not a diffusers model, {_INDEX} is missing; give one that has it")
    parts = _read(folder / _INDEX)
    if not any(part.startswith("text_encoder") for part in parts):
        raise InputError(f"images.model: {folder}: {_INDEX} names no text_encoder; give a text-to-image model")
    listed = any(parts.get("safety_checker") or [])
    if settings.safety_checker and listed and not (folder / "safety_checker").is_dir():
        raise InputError(f"{folder / 'safety_checker'}: missing; fetch it, or set images.safety_checker=false")
    files = {part: folder / part / "config.json" for part in ("unet", "vae")}
    check_parts(settings, {part: _read(file) for part, file in files.items() if file.is_file()})


def check_parts(settings: DiffusionImages, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """The same check on the configurations of the parts `unet` and `vae`, if the model has them."""
    model, resolution = settings.model, settings.resolution
    unet, vae = configs.get("unet", {}), configs.get("vae", {})
    taken, made = unet.get("in_channels", 0), unet.get("out_channels", 0)
    if taken > made:
        raise InputError(
            f"images.model: {model}: its U-Net takes {taken} channels and makes {made}, so it edits images "
            "(inpainting, upscaling); give a text-to-image model"
        )
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels") or [0]
    factor = 2 ** (len(blocks) - 1)
    if resolution % factor:
        near = max(1, round(resolution / factor)) * factor
        raise InputError(f"images.resolution: {model} makes multiples of {factor} pixels, not {resolution}; set {near}")


def _read(file: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"images.model: {file}: not valid JSON ({error}); fetch the model again") from None
    return read
