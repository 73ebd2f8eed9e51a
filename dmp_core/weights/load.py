"""Loading diffusion models: shipped with the package, a local folder, or an id on the hub."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from dmp_core.diffusion.decoder import FIELD, check_decoder
from dmp_core.errors import InputError, WrongSetting
from dmp_core.finite import check_parts
from dmp_core.weights.bases import check_base
from dmp_core.weights.resolve import UNREADABLE, resolve_model, why_unreadable
from dmp_core.weights.settings import BaseConfig, EditorConfig, NamedDecoder, NamedModel

if TYPE_CHECKING:
    from dmp_core.diffusion import DMPPipeline

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What the frozen weights are kept in, by mixed-precision mode."""


def load_base(
    config: BaseConfig, device: str = "cpu", dtype: torch.dtype = torch.float32, decoder: str | None = None
) -> DMPPipeline:
    """The whole base model, in evaluation mode, without progress bars.

    decoder: `sampling.decoder`, which decodes instead of the VAE.
    Returns a pipeline whose `vae`, `unet`, `text_encoder`, `tokenizer` and `scheduler` are its parts.
    Raises InputError that names the folder or hub id when it cannot be loaded.
    """
    from dmp_core.diffusion import DMPPipeline

    check_base(config.model, config.revision)
    place, options = _where(config)
    with _readable_errors(config), no_progress_bars():
        pipeline = DMPPipeline.from_pretrained(place, dtype=dtype, decoder=None, **options, **variant_of(place))
    pipeline.use_decoder(load_decoder(decoder, pipeline.vae))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    return pipeline


def load_trainable(config: BaseConfig, weights: Literal["lora", "all"], precision: str, device: str) -> DMPPipeline:
    """The base model to be fine-tuned: frozen weights in the precision of training, those that learn in float32.

    precision: a key of `DTYPES`. Errors as `load_base`.
    """
    return load_base(config, device, DTYPES["no" if weights == "all" else precision])


def load_vae(config: BaseConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """The base model's autoencoder alone, for stages that need no U-Net. Errors as `load_base`."""
    from diffusers import AutoencoderKL

    place, options = _where(config)
    options |= variant_of(str(Path(place) / "vae"))
    with _readable_errors(config), no_progress_bars():
        vae = AutoencoderKL.from_pretrained(place, subfolder="vae", torch_dtype=dtype, **options)
    check_parts({"vae": vae}, place)
    return vae.to(device).eval()


def load_decoder(name: str | None, vae: Any) -> Any:
    """The small decoder that `sampling.decoder` names, on the device and in the precision of `vae`; None without one.

    Raises InputError that names the setting when it cannot be loaded, and when it does not fit the autoencoder.
    """
    from diffusers import AutoencoderTiny

    if name is None:
        return None
    named = NamedDecoder(name)
    place, options = _where(named)
    with _readable_errors(named), no_progress_bars():
        check_decoder(name, AutoencoderTiny.load_config(place, **options), vae.config)
        decoder, info = AutoencoderTiny.from_pretrained(
            place, torch_dtype=vae.dtype, output_loading_info=True, **options, **variant_of(place)
        )
    if info["missing_keys"]:  # diffusers draws these at random
        raise InputError(f"{FIELD}: {place}: its weights lack {min(info['missing_keys'])}; fetch its files again")
    check_parts({"decoder": decoder}, place)
    return decoder.to(vae.device).eval()


def load_editor(config: EditorConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Diffusers' InstructPix2Pix pipeline, in evaluation mode, without progress bars and safety checker.

    config: with a `model`.
    Raises InputError as `load_base` does, and when the U-Net does not take an image beside the noisy latents.
    """
    from diffusers import StableDiffusionInstructPix2PixPipeline

    place, options = _where(config)
    with _readable_errors(config), no_progress_bars():
        editor = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            place, safety_checker=None, requires_safety_checker=False, dtype=dtype, **options, **variant_of(place)
        )
    if editor.unet.config.in_channels != 2 * editor.vae.config.latent_channels:
        raise InputError(
            f"{config.setting}: {config.model}: its U-Net takes {editor.unet.config.in_channels} channels, an editor's "
            f"takes {2 * editor.vae.config.latent_channels}; give one in InstructPix2Pix's format, or make one with "
            "`dmp prior edit`"
        )
    check_parts(editor.components, place)
    editor.set_progress_bar_config(disable=True)
    return editor.to(device)


def load_text_to_image(config: NamedModel, dtype: torch.dtype = torch.float32, *, safety_checker: bool = True) -> Any:
    """The text-to-image pipeline of diffusers that the model's own index names, on the CPU, without progress bars.

    Raises InputError that names the folder or hub id when it cannot be loaded or makes no images from text.
    """
    with warnings.catch_warnings():  # this imports every pipeline there is, and one of them warns
        warnings.simplefilter("ignore", FutureWarning)
        from diffusers import AutoPipelineForText2Image, DiffusionPipeline

    place, options = _where(config)
    with _readable_errors(config), no_progress_bars():
        parts = DiffusionPipeline.load_config(place, **options)
        unwanted = () if safety_checker else ("safety_checker", "feature_extractor")
        pipeline: Any = AutoPipelineForText2Image.from_pretrained(
            place, dtype=dtype, **{part: None for part in unwanted if part in parts}, **options, **variant_of(place)
        )
    check_parts(pipeline.components, place)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_tokenizers(config: NamedModel) -> list[Any]:
    """Those of the model's text encoders, without their weights. Raises InputError as the other loaders do."""
    from diffusers import DiffusionPipeline
    from transformers import AutoTokenizer

    place, options = _where(config)
    with _readable_errors(config), no_progress_bars():
        parts = DiffusionPipeline.load_config(place, **options)
        names = [name for name, kind in parts.items() if name.startswith("tokenizer") and kind[0]]
        return [AutoTokenizer.from_pretrained(place, subfolder=name, **options) for name in names]


def choose_device(name: str) -> str:
    """`auto` as the best device that is there; any other name as it is. Raises InputError if it is not there."""
    if name != "auto":
        if not has_device(name):
            raise WrongSetting(no_device(name))
        return name
    return next((accelerator for accelerator in ("cuda", "mps") if has_device(accelerator)), "cpu")


def has_device(name: str) -> bool:
    """Whether torch can use this kind of device here: cuda, mps or cpu."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(name, True)


def no_device(name: str) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    return f"runtime.device: no {name} device is found here{chosen}; set runtime.device=auto, or cpu"


def _where(config: NamedModel) -> tuple[str, dict[str, Any]]:
    located = resolve_model(str(config.model), config.setting, kind="priors", revision=config.revision)
    return located.place, located.options


def variant_of(place: str) -> dict[str, Any]:
    """`variant="fp16"` where a local folder holds its weights under that name only."""
    files = [path.name for path in Path(place).rglob("*.safetensors")] if Path(place).is_dir() else []
    return {"variant": "fp16"} if files and all(".fp16." in name for name in files) else {}


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Loading takes a second, and the bars would tear the caller's own progress display."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in libraries:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in libraries:
            log.enable_progress_bar()


@contextmanager
def _readable_errors(config: NamedModel) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the folder or hub id, and the fix."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        reason = why_unreadable(error)
    else:
        return
    field, (place, options) = config.setting, _where(config)
    if "local_files_only" in options:
        raise InputError(f"{field}: {place}: not a complete diffusers model ({reason}); give a folder that is")
    raise InputError(
        f"{field}: {config.model!r} could not be loaded ({reason}); it is taken as a hub id, since no such folder "
        "exists: check the spelling and the network, or give a local folder with the model in diffusers format"
    )
