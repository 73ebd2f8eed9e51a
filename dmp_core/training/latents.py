"""VAE latents of one column of the dataset: encoded once, read by every training run.

A latent shard is a safetensors file with the tensors `plain` (N, c, h, w) and, if `flip` is set, `flipped`
(N, c, h, w; of the mirrored images), and the samples' keys in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from dmp_core.diffusion.labels import encode
from dmp_core.diffusion.latents import downscale_factor, working_size
from dmp_core.errors import InputError, NotFinite
from dmp_core.finite import check_outputs, check_weights
from dmp_core.images import image_to_vae, resize_image
from dmp_core.memory import Batches
from dmp_core.modalities import Code, Modality, modality_of
from dmp_core.overlap import ahead

IMAGE = "image"
"""The column of the images themselves; the others are modalities."""
Array = NDArray[Any]

# One metadata entry only: safetensors writes several in no fixed order, and the bytes must not vary.
_METADATA = "dmp"


def encode_column(
    vae: Any,
    column: Modality | str,
    keys: Sequence[str],
    arrays: Iterable[Array],
    *,
    batch_size: int = 16,
    flip: bool = True,
    code: Code | None = None,
    resolution: int | None = None,
    dtype: torch.dtype = torch.float32,
    batches: Batches | None = None,
) -> bytes:
    """One latent shard of a column.

    column: `image`, or a modality.
    keys, arrays: the samples, in order; RGB images uint8 (H, W, 3), labels as in `dmp_core.modalities`.
        All of one size. While a batch is encoded, a thread reads the next one.
    flip: also encode them mirrored.
    code: how labels become images; None: the configuration's defaults.
    resolution: shorter side that images are resized to, in pixels; None keeps their size.
    dtype: of the stored latents; float16 halves the cache.
    batches: smaller batches to encode in when memory runs out; None: that is an error.

    The bytes depend only on the arguments. Raises InputError when sizes differ or counts disagree.
    """
    modality = None if column == IMAGE else modality_of(column)
    name = IMAGE if modality is None else modality.name
    encoder = _ColumnEncoder(vae, modality, code or Code(), resolution, dtype, batches)
    plain: list[Tensor] = []
    mirrored: list[Tensor] = []
    for prepared in ahead(_batches((encoder.prepare(array) for array in arrays), batch_size)):
        plain.append(encoder.encode(prepared))
        if flip:
            mirrored.append(encoder.encode([encoder.flip(array) for array in prepared]))
    count = sum(map(len, plain))
    if count != len(keys) or not plain:
        raise InputError(f"latents of {name}: {len(keys)} keys for {count} arrays; give one key per array")
    tensors = {"plain": torch.cat(plain)} | ({"flipped": torch.cat(mirrored)} if flip else {})
    for latents in tensors.values():
        try:
            check_outputs(latents, "is the base model damaged, or is its precision too low?")
        except NotFinite as error:
            raise error.named(list(keys)) from None
    return save_safetensors(tensors, _about(name, keys))


def empty_shard(column: str) -> bytes:
    """The shard of a column whose samples were all skipped; `read_column` does not accept it."""
    return save_safetensors({}, _about(column, ()))


def _about(column: str, keys: Sequence[str]) -> dict[str, str]:
    return {_METADATA: json.dumps({"column": column, "keys": list(keys)})}


class _ColumnEncoder:
    """From one column's arrays to latents."""

    def __init__(
        self,
        vae: Any,
        modality: Modality | None,
        code: Code,
        resolution: int | None,
        dtype: torch.dtype,
        batches: Batches | None,
    ) -> None:
        """modality: None encodes RGB images."""
        self.vae = vae
        self.modality = modality
        self.code = code
        self.resolution = resolution
        self.dtype = dtype
        self.batches = batches

    def prepare(self, array: Array) -> Array:
        size = working_size(array.shape[:2], self.resolution, downscale_factor(self.vae))
        return resize_image(array, size) if self.modality is None else self.modality.resize(array, size)

    def flip(self, array: Array) -> Array:
        return np.flip(array, -2).copy() if self.modality is None else self.modality.mirror(array)

    def encode(self, arrays: list[Array]) -> Tensor:
        return self._encode(arrays) if self.batches is None else torch.cat([*self.batches(arrays, self._encode)])

    def _encode(self, arrays: Sequence[Array]) -> Tensor:
        sizes = sorted({array.shape for array in arrays})
        name = IMAGE if self.modality is None else self.modality.name
        if len(sizes) > 1:
            raise InputError(f"latents of {name}: images differ in size ({sizes}); set latents.resolution")
        stacked = np.stack(arrays)
        pixels = image_to_vae(stacked) if self.modality is None else self.modality.to_image(stacked, self.code)
        return encode(self.vae, pixels, len(arrays)).to(self.dtype).contiguous()


def _batches(arrays: Iterable[Array], size: int) -> Iterator[list[Array]]:
    stream = iter(arrays)
    while batch := list(islice(stream, size)):
        yield batch


class MappedLatents:
    """Latents (N, c, h, w) of several files, which stay there: a row is read when it is drawn."""

    def __init__(self, parts: Sequence[Tensor], rows: Sequence[tuple[int, int]] | None = None) -> None:
        """parts: memory-mapped, of one shape and dtype; rows: (part, row) in order, None: all."""
        self.parts = parts
        self.rows = rows or [(number, row) for number, part in enumerate(parts) for row in range(len(part))]
        self.shape = torch.Size((len(self.rows), *parts[0].shape[1:]))
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice) -> Tensor:
        """One row, or a copy of several."""
        if isinstance(index, slice):
            return torch.stack([self.parts[part][row] for part, row in self.rows[index]])
        part, row = self.rows[index]
        return self.parts[part][row]

    def take(self, indices: Sequence[int]) -> MappedLatents:
        """These rows only, none of which is read."""
        return MappedLatents(self.parts, [self.rows[index] for index in indices])


Latents = Tensor | MappedLatents


@dataclass(frozen=True)
class LatentColumn:
    """All latents of one column: plain and flipped are (N, c, h, w); flipped is None if not encoded."""

    column: str
    keys: tuple[str, ...]
    plain: Latents
    flipped: Latents | None


def read_column(shards: Iterable[bytes | str | Path]) -> LatentColumn:
    """Latent shards in their order: those given as bytes joined in memory, those given as paths memory-mapped.

    Raises InputError when one is unreadable, or when they are not of one column and shape.
    """
    given = list(shards)
    parts = [_read_shard(shard, number) for number, shard in enumerate(given)]
    if not parts:
        raise InputError("latents: no shard was given; run the latents stage")
    kinds = {(column, plain.shape[1:], flipped is None) for column, _, plain, flipped in parts}
    if len(kinds) > 1:
        raise InputError(f"latents: shards of different kinds cannot be joined: {sorted(map(str, kinds))}")
    column, keys, plain, flipped = zip(*parts, strict=True)
    join = torch.cat if any(isinstance(shard, bytes) for shard in given) else MappedLatents
    return LatentColumn(
        column=column[0],
        keys=tuple(key for some in keys for key in some),
        plain=join(plain),
        flipped=None if flipped[0] is None else join(flipped),
    )


_Shard = tuple[str, tuple[str, ...], Tensor, Tensor | None]
"""Column, keys, plain and flipped latents."""


def _read_shard(shard: bytes | str | Path, number: int) -> _Shard:
    name = f"latent shard {number}" if isinstance(shard, bytes) else str(shard)
    try:
        tensors, metadata = _of_bytes(shard) if isinstance(shard, bytes) else _mapped(shard)
        about = json.loads(metadata[_METADATA])
        column, keys, plain = about["column"], tuple(about["keys"]), tensors["plain"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{name}: unreadable latent shard ({error}); delete it and rerun the latents stage") from None
    if len(keys) != len(plain):
        raise InputError(f"{name}: {len(keys)} keys for {len(plain)} latents; rerun the latents stage")
    check_weights(tensors, name)
    if not isinstance(shard, bytes):
        tensors, _ = _mapped(shard)  # mapped again: checking has brought all of the first mapping into memory
    return column, keys, tensors["plain"], tensors.get("flipped")


def _of_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = load_safetensors(data)
    # The header's length is a little-endian 8-byte integer, then the header as JSON.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header["__metadata__"]


def _mapped(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (a file)
