"""A tiny base model, its editor, and columns of latents that can be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dmp_core.diffusion import Schedule, interpolate
from dmp_core.diffusion.text import embed_texts
from dmp_core.methods.shared.editing import editor_from, widen_unet
from dmp_core.training.latents import LatentColumn
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig


def base_of(folder: Path) -> Any:
    return load_base(BaseConfig(model=str(folder)))


def editor_of(folder: Path) -> Any:
    """Untrained: the base's own U-Net, widened."""
    base = base_of(folder)
    return editor_from(base, widen_unet(base.unet).eval())


def column(name: str, latents: torch.Tensor) -> LatentColumn:
    return LatentColumn(name, tuple(f"train-{n:08d}" for n in range(len(latents))), latents, None)


def sources() -> torch.Tensor:
    """Latents (8, 4, 4, 4) of the images of `blobs(8)`."""
    return torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(3))


def held_out_error(editor: Any, instruction: torch.Tensor | str) -> float:
    """Noise error on pairs and draws not in the training; the same for every instruction."""
    embeds = embed_texts(editor, [instruction])[0] if isinstance(instruction, str) else instruction
    schedule = Schedule.from_config(editor.scheduler.config)
    generator = torch.Generator().manual_seed(99)
    image, noise = torch.randn(2, 64, 4, 4, 4, generator=generator).unbind()
    t = torch.randint(0, 1000, (64,), generator=generator)
    noisy = interpolate(schedule, blobs(64, seed=9), noise, t)
    with torch.no_grad():
        found = editor.unet(torch.cat([noisy, image / 0.5], 1), t, encoder_hidden_states=embeds.expand(64, -1, -1))
    return float((found.sample - noise).square().mean())


def blobs(count: int, seed: int = 0) -> torch.Tensor:
    """Latents (count, 4, 4, 4) of a constant plus small values: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.tensor([1.5, -1.0, 0.5, -2.0]).view(1, 4, 1, 1)
    return level + 0.1 * torch.randn(count, 4, 4, 4, generator=generator)
