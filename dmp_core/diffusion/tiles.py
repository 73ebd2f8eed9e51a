"""Large images in tiles that overlap, blended smoothly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dmp_core.errors import InputError


@dataclass(frozen=True)
class Tiles:
    """Square tiles of an image at the networks' working size, in pixels."""

    size: int
    overlap: int

    @classmethod
    def of(cls, size: int, overlap: int | None, factor: int) -> Tiles:
        """overlap: None is a fourth of the size. Raises InputError unless tiles are whole latents and move on.

        factor: pixels per latent along a side.
        """
        overlap = size // 4 if overlap is None else overlap
        if size < factor or size % factor:
            raise InputError(f"tile: {size}; give a multiple of {factor}, the pixels per latent")
        if not 0 <= overlap < size:
            raise InputError(f"overlap: {overlap}; give 0 or more, and less than the tile's {size} pixels")
        return cls(size, overlap)

    def starts(self, length: int) -> list[int]:
        """First pixels of the tiles along a side, evenly spaced, from edge to edge."""
        spare = length - self.size
        if spare <= 0:
            return [0]
        gaps = math.ceil(spare / (self.size - self.overlap))
        return [round(spare * number / gaps) for number in range(gaps + 1)]

    def weights(self, length: int) -> Tensor:
        """Of a tile's pixels along a side: 1 in the middle, sin² towards both edges over the overlap."""
        from_edge = torch.arange(length) + 0.5
        from_edge = torch.minimum(from_edge, from_edge.flip(0))
        return torch.sin(math.pi / 2 * (from_edge / max(self.overlap, 0.5)).clamp(max=1)) ** 2


def tiled(images: Tensor, network: Callable[[Tensor], Tensor], tiles: Tiles, *, choose: bool = False) -> Tensor:
    """The output (B, C, h, w) of a network that keeps the size, tile by tile, as float32 on the CPU.

    images: (B, C', h, w); one that fits into a tile passes the network as it is.
    choose: take each pixel from the tile whose centre is nearest, instead of the weighted mean; for class maps, where
        a mean of two colours may be a third class's.
    """
    height, width = images.shape[-2:]
    if height <= tiles.size and width <= tiles.size:
        return network(images)
    total, norm = torch.zeros(()), torch.zeros(height, width)
    for rows, columns in _places(tiles, height, width):
        part = network(images[..., rows, columns]).float().cpu()
        if total.ndim == 0:
            total = torch.zeros(*part.shape[:2], height, width)
        weight = torch.outer(tiles.weights(part.shape[-2]), tiles.weights(part.shape[-1]))
        if choose:
            nearer = weight > norm[rows, columns]
            total[..., rows, columns] = torch.where(nearer, part, total[..., rows, columns])
            norm[rows, columns] = torch.where(nearer, weight, norm[rows, columns])
        else:
            total[..., rows, columns] += weight * part
            norm[rows, columns] += weight
    return total if choose else total / norm


def _places(tiles: Tiles, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    for top in tiles.starts(height):
        for left in tiles.starts(width):
            yield slice(top, min(top + tiles.size, height)), slice(left, min(left + tiles.size, width))
