"""A tiny base model, built once, and latents that can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_core.training.data import LabelImages, LatentPairs
from dmp_core.training.latents import LatentColumn
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.tiny import write_base


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def tiny_base(tiny_folder: Path):
    """Loaded again: training changes the U-Net in place."""
    return load_base(BaseConfig(model=str(tiny_folder)))


def toy_pairs(batch_size: int = 4, samples: int = 8, seed: int = 0) -> LatentPairs:
    """Labels that are their images with the channels reversed: easy, but not the identity."""
    generator = torch.Generator().manual_seed(7)
    source = torch.randn(2, samples, 4, 4, 4, generator=generator)
    keys = tuple(f"train-{n:08d}" for n in range(samples))
    columns = [LatentColumn(name, keys, *values) for name, values in (("image", source), ("normal", source.flip(2)))]
    return LatentPairs(columns[0], columns[1], batch_size, seed)


def toy_labels(height: int, width: int, samples: int = 8) -> LabelImages:
    """Label images of albedo for `toy_pairs`."""
    codes = np.random.default_rng(3).integers(0, 256, (samples, 3, height, width), dtype=np.uint8)
    return LabelImages(codes, "albedo")
