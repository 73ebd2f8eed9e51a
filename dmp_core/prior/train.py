"""The whole recipe, part by part: data → vae → unet → export. Each part resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmp_core.prior.config import PriorConfig
from dmp_core.progress import Progress, silent

PARTS = ("data", "vae", "unet", "export")


def train_prior(
    config: PriorConfig, out: Path, work: Path, *, parts: Sequence[str] = PARTS, progress: Progress = silent
) -> Path:
    """Make the prior, end to end or only `parts` of it.

    out: the finished diffusers folder. work: scenes, checkpoints and logs; kept, and resumed from.
    """
    from dmp_core.prior.data import render_scenes
    from dmp_core.prior.start import start_folder

    start_folder(config)  # checked before hours of rendering
    if "data" in parts:
        render_scenes(config, work / "scenes", progress)
    if set(parts) <= {"data"}:
        return out
    import torch

    torch.set_num_threads(config.workers)
    vae = _vae(config, work, "vae" in parts, progress)
    if set(parts) & {"unet", "export"}:
        from dmp_core.prior.export import export_prior
        from dmp_core.prior.unet import train_unet

        unet, text_encoder, tokenizer = train_unet(config, vae, work / "scenes", work / "unet", progress)
        if "export" in parts:
            export_prior(config, vae, unet, text_encoder, tokenizer, work, out, progress)
    return out


def _vae(config: PriorConfig, work: Path, train: bool, progress: Progress) -> Any:
    """The autoencoder: trained now, from the last training, or the unchanged one of the prior to start from."""
    from diffusers import AutoencoderKL

    from dmp_core.prior.start import load_part, start_folder
    from dmp_core.prior.vae import train_vae

    start = start_folder(config)
    if start is not None and not config.tune:
        return load_part(start, "vae").requires_grad_(False)
    finished = work / "vae" / "model"
    if train or not finished.is_dir():
        train_vae(config, work / "scenes", work / "vae", progress).save_pretrained(finished)
    vae = AutoencoderKL.from_pretrained(finished)
    return vae.eval().requires_grad_(False)
