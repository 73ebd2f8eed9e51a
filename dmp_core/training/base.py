"""Loading the base model: shipped with the package, a local folder, or an id on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dmp_core.config.stages import BaseConfig
from dmp_core.errors import InputError
from dmp_core.models.shipped import resolve_folder

if TYPE_CHECKING:
    from dmp_core.diffusion import DMPPipeline

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What the frozen weights are kept in, by mixed-precision mode."""


def load_base(config: BaseConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DMPPipeline:
    """The whole base model, in evaluation mode, without progress bars.

    Returns a pipeline whose `vae`, `unet`, `text_encoder`, `tokenizer` and `scheduler` are its parts.
    Raises InputError that names the folder or hub id when it cannot be loaded.
    """
    from dmp_core.diffusion import DMPPipeline

    place, options = _where(config)
    with _readable_errors(config), _no_progress_bars():
        pipeline = DMPPipeline.from_pretrained(place, dtype=dtype, **options, **_variant(place))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    return pipeline


def load_vae(config: BaseConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """The base model's autoencoder alone, for stages that need no U-Net. Errors as `load_base`."""
    from diffusers import AutoencoderKL

    place, options = _where(config)
    options |= _variant(str(Path(place) / "vae"))
    with _readable_errors(config), _no_progress_bars():
        vae = AutoencoderKL.from_pretrained(place, subfolder="vae", torch_dtype=dtype, **options)
    return vae.to(device).eval()


def choose_device(name: str) -> str:
    """`auto` as the best device that is there; any other name as it is."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _where(config: BaseConfig) -> tuple[str, dict[str, Any]]:
    folder = resolve_folder(config.model, "priors")
    if folder is not None:
        return str(folder), {"local_files_only": True}
    return config.model, {"revision": config.revision}


def _variant(place: str) -> dict[str, Any]:
    """`variant="fp16"` where a local folder holds its weights under that name only."""
    files = [path.name for path in Path(place).rglob("*.safetensors")] if Path(place).is_dir() else []
    return {"variant": "fp16"} if files and all(".fp16." in name for name in files) else {}


@contextmanager
def _no_progress_bars() -> Iterator[None]:
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
def _readable_errors(config: BaseConfig) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the folder or hub id, and the mend."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    else:
        return
    folder = resolve_folder(config.model, "priors")
    if folder is not None:
        raise InputError(f"base.model: {folder}: not a complete diffusers model ({reason}); give a folder that is")
    raise InputError(
        f"base.model: {config.model!r} could not be loaded ({reason}); it is taken as a hub id, since no such folder "
        "exists: check the spelling and the network, or give a local folder with the model in diffusers format"
    )
