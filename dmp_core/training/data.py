"""What training sees at which step: a pure function of (seed, step), so that resuming is exact by design."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmp_core.diffusion.labels import mirrored
from dmp_core.diffusion.latents import downscale_factor
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality, modality_of
from dmp_core.modalities.classes import ClassMap
from dmp_core.training.latents import LatentColumn, Latents, MappedLatents

# Streams of random numbers that must stay independent.
_ORDER, _DRAW = 1, 2


@dataclass(frozen=True)
class Batch:
    """The samples, whether each is mirrored, and its timestep; all (B,)."""

    indices: Tensor
    flips: Tensor
    timesteps: Tensor

    def part(self, rank: int, world: int) -> Batch:
        """Every `world`-th draw, from `rank` on: one process's share."""
        return Batch(self.indices[rank::world], self.flips[rank::world], self.timesteps[rank::world])


class LatentPairs:
    """Image and label latents, key by key, and the order in which they are drawn.

    Every epoch is one permutation of the samples; batches run across its end, so all are full.
    Mirroring is a fair coin per draw; timesteps are uniform over the schedule (eq. 3's expectation).
    `columns`: images and labels as given, without the excluded samples.
    """

    def __init__(
        self,
        source: LatentColumn,
        target: LatentColumn,
        batch_size: int,
        seed: int = 0,
        num_timesteps: int = 1000,
        exclude: Collection[str] = (),
    ) -> None:
        """exclude: keys of samples to ignore, as if the columns did not contain them.

        Raises InputError when the columns do not contain the same samples in the same order and shape.
        """
        _check_pair(source, target)
        if exclude:
            source, target = (without(column, exclude) for column in (source, target))
        flipped = source.flipped is not None and target.flipped is not None
        self.keys = source.keys
        self.columns = source, target
        self.batch_size = batch_size
        self.seed = seed
        self.num_timesteps = num_timesteps
        self.source = Variants(source, flipped)
        self.target = Variants(target, flipped)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def can_flip(self) -> bool:
        return len(self.source) == 2

    def batch(self, step: int) -> Batch:
        """The draw of one step, for any step in any order."""
        indices = torch.from_numpy(draw_indices(len(self), step, self.batch_size, self.seed))
        random = np.random.default_rng([self.seed, _DRAW, step])
        timesteps = random.integers(0, self.num_timesteps, self.batch_size)
        flips = random.integers(0, 2, self.batch_size) * self.can_flip
        return Batch(indices, torch.from_numpy(flips), torch.from_numpy(timesteps))

    def pixels(self, vae: Any) -> tuple[int, int]:
        """Height and width of the images that the latents encode."""
        factor = downscale_factor(vae)
        return self.source.shape[-2] * factor, self.source.shape[-1] * factor

    def gather(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Image and label latents (x, y) of a draw, each (B, c, h, w)."""
        return self.source.gather(batch), self.target.gather(batch)


class Variants:
    """A column as (1 or 2, N, c, h, w): plain, then flipped; nothing is copied before it is drawn."""

    def __init__(self, column: LatentColumn, flipped: bool) -> None:
        self.each: list[Latents] = [column.plain]
        if flipped and column.flipped is not None:
            self.each.append(column.flipped)
        self.shape = torch.Size((len(self.each), *column.plain.shape))

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, variant: int) -> Latents:
        return self.each[variant]

    def gather(self, batch: Batch) -> Tensor:
        """The rows of a draw, (B, c, h, w)."""
        drawn = zip(batch.flips.tolist(), batch.indices.tolist(), strict=True)
        return torch.stack([self.each[flip][index] for flip, index in drawn])


@dataclass(frozen=True)
class LabelImages:
    """The true labels as images, in the order of the pairs: targets of decoded predictions."""

    codes: NDArray[np.uint8]
    """(N, 3, H, W), as `Modality.to_image` makes them: (v + 1) · 127.5."""
    modality: Modality | str

    def gather(self, batch: Batch) -> NDArray[np.uint8]:
        """Label images of a draw, (B, 3, H, W)."""
        return mirrored(self.codes[batch.indices.numpy()], self.modality, batch.flips.bool().numpy())


class ClassWeights:
    """Weight of a pixel of a class map: class weight · (class's share of all pixels)^-balance, 1 on average.

    A pixel's likeliest colour is the majority's: without weights, small objects disappear.
    """

    def __init__(self, labels: LabelImages, balance: float) -> None:
        pixels: Counter[int] = Counter()
        for image in labels.codes:
            colours, counts = np.unique(_packed(image[None]), return_counts=True)
            pixels.update(dict(zip(colours.tolist(), counts.tolist(), strict=True)))
        self.colours = np.array(sorted(pixels))
        shares = np.array([pixels[colour] for colour in self.colours.tolist()]) / pixels.total()
        weights = shares**-balance * _weights_of(modality_of(labels.modality), self.colours)
        self.weights = (weights / (weights * shares).sum()).astype(np.float32)

    def __call__(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 1, H, W), for label images (B, 3, H, W) in the colours of the labels."""
        return self.weights[np.searchsorted(self.colours, _packed(codes))]


def _weights_of(modality: Modality, colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """The modality's own weights of the classes that packed colours (K,) represent."""
    weights = np.ones(len(colours))
    if isinstance(modality, ClassMap) and modality.weights:
        palette = modality.palette(Code()).colours
        for number, weight in modality.weights.items():
            weights[colours == _packed(palette[number][None, :, None, None]).item()] = weight
    return weights


def _packed(codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (B, 3, H, W) as one number per pixel, (B, 1, H, W)."""
    red, green, blue = np.moveaxis(codes.astype(np.int32), 1, 0)
    return ((red << 16) + (green << 8) + blue)[:, None]


def draw_indices(samples: int, step: int, size: int, seed: int) -> NDArray[np.int64]:
    """Which samples step `step` sees, (size,). Every epoch is one permutation; batches run across its end."""
    positions = range(step * size, (step + 1) * size)
    return np.array([_permutation(samples, p // samples, seed)[p % samples] for p in positions])


@lru_cache(maxsize=8)
def _permutation(samples: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(samples)


def without(column: LatentColumn, exclude: Collection[str]) -> LatentColumn:
    """The column without the samples of these keys."""
    kept = [number for number, key in enumerate(column.keys) if key not in exclude]
    return replace(
        column,
        keys=tuple(column.keys[number] for number in kept),
        plain=_take(column.plain, kept),
        flipped=None if column.flipped is None else _take(column.flipped, kept),
    )


def _take(latents: Latents, kept: list[int]) -> Latents:
    return latents.take(kept) if isinstance(latents, MappedLatents) else latents[kept]


def _check_pair(source: LatentColumn, target: LatentColumn) -> None:
    if source.keys != target.keys:
        missing = sorted(set(source.keys) ^ set(target.keys))[:3]
        what = f"only one has {', '.join(missing)}" if missing else "their order differs"
        raise InputError(
            f"latents: columns {source.column!r} ({len(source.keys)} samples) and {target.column!r} "
            f"({len(target.keys)}) do not contain the same samples ({what}); rerun the latents stage for both"
        )
    if source.plain.shape != target.plain.shape:
        raise InputError(
            f"latents: {source.column!r} is {tuple(source.plain.shape)}, {target.column!r} is "
            f"{tuple(target.plain.shape)}; encode both with the same VAE and resolution"
        )
