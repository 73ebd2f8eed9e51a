"""Starting from a finished prior: the parts to use, and the log of its own training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from dmp_core.errors import InputError
from dmp_core.prior.config import PriorConfig
from dmp_core.weights.resolve import resolve_model


def start_folder(config: PriorConfig) -> Path | None:
    """The prior to start from. Raises InputError when it is missing, or has other latents than the recipe's."""
    if config.start is None:
        return None
    folder = Path(resolve_model(config.start, "start", kind="priors").place)
    try:
        latents = json.loads((folder / "unet" / "config.json").read_text())["in_channels"]
    except OSError as error:
        raise InputError(f"start: {config.start}: {error.strerror}; give a prior's folder, or shipped:mini") from None
    if latents != config.vae.latent_channels:
        raise InputError(
            f"vae.latent_channels: {config.vae.latent_channels}, but {config.start} has {latents}; set it to {latents}"
        )
    return folder


def start_of_unet(config: PriorConfig) -> Path | None:
    """The prior whose U-Net, text encoder and tokenizer are trained further; None: new ones."""
    return start_folder(config) if config.keep == "all" else None


def load_part(folder: Path, part: str) -> Any:
    """`vae`, `unet`, `text_encoder` (float32, evaluation mode) or `tokenizer` of a prior's folder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    if part == "tokenizer":
        return CLIPTokenizer.from_pretrained(folder, subfolder=part)
    kinds = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
    return kinds[part].from_pretrained(folder, subfolder=part).float().eval()


def training_log(config: PriorConfig, work: Path, part: str) -> pd.DataFrame:
    """The log of a part's training, after that of the prior it started from."""
    own = work / part / "log.csv"
    logs = [pd.read_csv(own)] if own.exists() else []
    folder = start_of_unet(config) if part == "unet" else start_folder(config)
    if folder is not None:
        before = pd.read_csv(folder / f"{part}_log.csv")
        for log in logs:
            log[["step", "seconds"]] += before[["step", "seconds"]].iloc[-1]
        logs.insert(0, before)
    return pd.concat(logs, ignore_index=True)
