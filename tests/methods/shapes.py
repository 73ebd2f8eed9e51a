"""Pairs that can be learnt in seconds: a bright disc on a dark ground, and a label image that separates them."""

from __future__ import annotations

import numpy as np
import torch

from dmp_core.methods.shared.adversarial import Translator
from dmp_core.training.pairs import ImagePairs

DISC, GROUND = (0.8, 0.2, -0.4), (-0.6, 0.2, 0.7)


def shapes(count: int, size: int = 16, seed: int = 0) -> ImagePairs:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    middle_row, middle_column = random.uniform(0.2, 0.8, (2, count, 1, 1)) * size
    radius = random.uniform(0.2, 0.35, (count, 1, 1)) * size
    inside = (rows - middle_row) ** 2 + (columns - middle_column) ** 2 < radius**2
    light = np.where(inside, random.uniform(150, 240, (count, 1, 1)), random.uniform(20, 90, (count, 1, 1)))
    tint = random.uniform(0.7, 1, (count, 1, 1, 3))
    images = light[..., None] * tint + random.normal(0, 5, (count, size, size, 3))
    labels = np.where(inside[..., None], DISC, GROUND)
    keys = [f"train-{number:08d}" for number in range(count)]
    codes = images.clip(0, 255).astype(np.uint8)
    return ImagePairs(keys, codes, np.moveaxis(labels, -1, 1).astype(np.float32), "albedo")


def error(model: Translator, held_out: ImagePairs) -> float:
    """Mean absolute error over label images."""
    x, y = held_out.batch(0, len(held_out), 0, False)
    return float((model(x) - y).abs().mean())


def constant_error(train: ImagePairs, held_out: ImagePairs) -> float:
    """The same of the best single colour: the median, which no other beats on the training set."""
    colour = torch.from_numpy(np.median(train.targets, axis=(0, 2, 3), keepdims=True))
    _, y = held_out.batch(0, len(held_out), 0, False)
    return float((colour - y).abs().mean())
