"""Training data of the methods: images with their label images."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmp_core.diffusion.labels import mirrored
from dmp_core.errors import InputError
from dmp_core.modalities import Modality, modality_of
from dmp_core.training.data import draw_indices

Array = NDArray[Any]

# A separate stream of random numbers, independent of those of `dmp_core.training.data`.
_FLIP = 3


class ImagePairs:
    """Images with their label images, and the order in which they are drawn.

    keys: N names, one per sample.
    images: uint8 (N, H, W, 3).
    targets: (N, 3, H, W), as `Modality.to_image` makes them: floats in [-1, 1], or
        the same as uint8 codes (v + 1) · 127.5, which take a quarter of the memory.
    modality: decides what mirroring does to a label: the x of normals changes sign.

    The arrays are only indexed, so they may be memory-mapped. Raises InputError when they do not match.
    """

    def __init__(self, keys: Sequence[str], images: Array, targets: Array, modality: Modality | str) -> None:
        self.keys = tuple(keys)
        self.images = images
        self.targets = targets
        self.modality = modality_of(modality)
        self._check()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.images.shape[1], self.images.shape[2]

    def batch(self, step: int, size: int, seed: int, flip: bool) -> tuple[Tensor, Tensor]:
        """The draw of one step, for any step in any order: x and y, each float32 (size, 3, H, W) in [-1, 1].

        Every epoch is one permutation of the samples, and batches run across its end. With `flip`, a fair
        coin per draw mirrors a pair.
        """
        indices = draw_indices(len(self), step, size, seed)
        images, targets = np.moveaxis(self.images[indices], -1, 1), self.targets[indices]
        if flip:
            where = np.random.default_rng([seed, _FLIP, step]).integers(0, 2, size).astype(bool)
            images[where] = np.flip(images[where], -1)
            targets = mirrored(targets, self.modality, where)
        return _to_unit(images), _to_unit(targets)

    def digest(self) -> str:
        """SHA-256 of all data: equal digests give equal batches."""
        digest = hashlib.sha256("\n".join((self.modality.name, *self.keys)).encode())
        for array in (self.images, self.targets):
            digest.update(f"{array.dtype} {array.shape}".encode())
            for sample in array:
                digest.update(np.ascontiguousarray(sample).data)
        return digest.hexdigest()

    def _check(self) -> None:
        images, targets = self.images, self.targets
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(f"images: expected uint8 (N, H, W, 3), found {images.dtype} {images.shape}")
        if targets.dtype not in (np.uint8, np.float32):
            raise InputError(f"label images: expected float32 in [-1, 1] or uint8 codes, found {targets.dtype}")
        count, height, width, _ = images.shape
        if targets.shape != (count, 3, height, width) or len(self.keys) != count:
            raise InputError(
                f"label images: {len(self.keys)} keys, images {images.shape} and label images {targets.shape} do not "
                f"match; expected label images of shape {(count, 3, height, width)}"
            )
        if count == 0:
            raise InputError("images: there is no pair to train on")


class RowsOnDisk:
    """Arrays of one shape and type, written one by one to a file without a name, and mapped into memory.

    What is not drawn takes no memory, and the system takes back what was; the file goes with the last array.
    """

    def __init__(self, folder: Path | None, what: str) -> None:
        """folder: on the disk that takes the rows; None: the system's for temporary files. what: for errors."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file, self._what = tempfile.TemporaryFile(dir=folder), what  # noqa: SIM115
        self._first: Array | None = None
        self._count = 0

    def append(self, row: Array, key: str) -> None:
        """Raises InputError that names the sample when it differs from the first one in shape or type."""
        first = row if self._first is None else self._first
        if (row.shape, row.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{self._what}: {key}: {row.dtype} {row.shape}, and the first sample has {first.dtype} {first.shape}; "
                "train on images of one size"
            )
        # Not through the map: on a full disk that would kill the process instead of raising an error.
        self._file.write(np.ascontiguousarray(row).data)
        self._first, self._count = first, self._count + 1

    def mapped(self) -> Array:
        """All rows, (N, …), read-only. Raises InputError when there is none."""
        if self._first is None:
            raise InputError(f"{self._what}: there is no pair to train on")
        self._file.flush()
        shape = (self._count, *self._first.shape)
        return np.asarray(np.memmap(self._file, self._first.dtype, "r", shape=shape))


def _to_unit(batch: Array) -> Tensor:
    """Codes or values (B, 3, H, W) as float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(batch))
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels
