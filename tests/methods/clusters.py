"""A problem whose solution is in the image: dark and bright images, each kind with its own label; and a base model
and an editor for such images, fitted in seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmp_core.diffusion.labels import encode
from dmp_core.images import image_to_vae
from dmp_core.methods.shared.editing import fit_instruct
from dmp_core.methods.shared.label_prior import fit_label_prior, load_label_prior
from dmp_core.methods.shared.settings import InstructConfig, LabelPriorConfig
from dmp_core.modalities import Code, find_modality
from dmp_core.training.data import LatentPairs
from dmp_core.training.latents import LatentColumn
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.tiny import write_base

SIZE = 16
Levels = tuple[float, float]
"""Shading of a dark image, and of a bright one."""


def sample_images(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey and grainy images (N, 16, 16, 3), and their kinds (N,): 0 dark, 1 bright, as many of each."""
    random = np.random.default_rng(seed)
    kinds = random.permutation(np.arange(count) % 2)
    level = np.where(kinds, 190, 65) + random.uniform(-25, 25, count)
    grain = random.normal(0, 8, (count, SIZE, SIZE, 3))
    return (level[:, None, None, None] + grain).clip(0, 255).astype(np.uint8), kinds


def labels_of(kinds: NDArray[np.int64], levels: Levels) -> NDArray[np.float32]:
    """Flat maps (N, 16, 16)."""
    return np.tile(np.float32(levels)[kinds][:, None, None], (1, SIZE, SIZE))


class Data:
    """A training split: 32 images and their labels."""

    fingerprints = {"source": "0" * 12}

    def __init__(self, base: Path, levels: Levels) -> None:
        images, kinds = sample_images(32, seed=0)
        self.labels = labels_of(kinds, levels)
        vae = load_base(BaseConfig(model=str(base))).vae
        self.images = _column(vae, "image", image_to_vae(images))
        self.targets = _column(vae, "shading", find_modality("shading").to_image(self.labels, Code(depth_scale=8.0)))

    def __len__(self) -> int:
        return len(self.labels)

    def latent_pairs(self, batch_size: int, seed: int) -> LatentPairs:
        return LatentPairs(self.images, self.targets, batch_size, seed)

    def image_pairs(self, folder: Path | None = None) -> Any:
        raise AssertionError("these methods need latents")

    def prompts(self) -> list[str]:
        raise AssertionError("nothing here needs captions")


def _column(vae: Any, name: str, pixels: torch.Tensor) -> LatentColumn:
    keys = tuple(f"train-{number:08d}" for number in range(len(pixels)))
    return LatentColumn(name, keys, encode(vae, pixels), None)


def write_prior(folder: Path) -> Path:
    """The tiny base after a pre-training: an autoencoder of grey images, and a U-Net that generates `sample_images`."""
    write_base(folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    base = load_base(BaseConfig(model=str(folder)))
    _fit_autoencoder(base.vae)
    base.vae.save_pretrained(folder / "vae")
    base = load_base(BaseConfig(model=str(folder)))
    images = _column(base.vae, "image", image_to_vae(sample_images(64, seed=1)[0]))
    config = LabelPriorConfig(weights="all", steps=400, batch_size=16, learning_rate=4e-3, log_every=100)
    fitted = fit_label_prior(config, base, images, folder / "work", folder / "prior")
    load_label_prior(base, fitted.folder).save_pretrained(folder / "unet")
    return folder


def write_editor(folder: Path, prior: Path, instructions: dict[str, Levels]) -> Path:
    """An editor of `sample_images` for these instructions, with the shading that each of them produces."""
    base = load_base(BaseConfig(model=str(prior)))
    images, kinds = sample_images(64, seed=1)
    count = len(instructions)
    before = image_to_vae(np.concatenate([images] * count))
    after = np.concatenate([labels_of(kinds, levels) for levels in instructions.values()])
    pairs = LatentPairs(
        _column(base.vae, "before", before),
        _column(base.vae, "after", find_modality("shading").to_image(after, Code(depth_scale=8.0))),
        batch_size=16,
    )
    texts = [text for text in instructions for _ in images]
    config = InstructConfig(steps=300, batch_size=16, learning_rate=2e-3, lr_schedule="cosine", log_every=100)
    fit_instruct(config, base, pairs, texts, folder / "work", folder / "editor")
    return folder / "editor"


def _fit_autoencoder(vae: Any, steps: int = 200, rate: float = 1e-2) -> None:
    """Flat images from grainy ones, of any level of grey."""
    generator = torch.Generator().manual_seed(0)
    vae.train().requires_grad_(True)
    optimiser = torch.optim.Adam(vae.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        level, grain = torch.rand(2, 8, 1, 1, 1, generator=generator)
        image = 2 * level - 1 + 0.12 * grain * torch.randn(8, 3, SIZE, SIZE, generator=generator)
        latents = vae.encode(image).latent_dist.mode()
        found = vae.decode(latents + 0.1 * torch.randn(latents.shape, generator=generator)).sample
        loss = (found - (2 * level - 1)).square().mean() + 1e-3 * latents.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    vae.register_to_config(scaling_factor=1.5)  # latents of about unit size
