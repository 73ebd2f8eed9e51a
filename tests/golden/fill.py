"""The deterministic weights behind every golden vector: each tensor is drawn from a PRNG seeded by its key."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def fill_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor of ``key``: scaled standard normals, by the kind of parameter."""
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    leaf = key.rpartition(".")[2]
    if leaf == "running_var":
        draw = 1 + 0.1 * np.abs(draw)
    elif leaf == "running_mean":
        draw = 0.1 * draw
    elif len(shape) >= 2:
        draw = draw / math.sqrt(math.prod(shape[1:]))
    else:
        draw = 0.1 * draw + (1.0 if leaf == "weight" else 0.0)
    return torch.from_numpy(np.asarray(draw, dtype=np.float32))


@torch.no_grad()
def fill_module(
    module: nn.Module, skip: tuple[str, ...] = (), rename: Callable[[str], str] = lambda key: key
) -> nn.Module:
    """Fill a module in place; ``skip``: key endings to leave; ``rename``: state-dict key -> original key."""
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not key.endswith(skip):
            tensor.copy_(fill_value(rename(key), tuple(tensor.shape)))
    return module


def uniform(seed: int, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform float32 input of the golden vectors."""
    draw = np.random.Generator(np.random.PCG64(seed)).random(shape)
    return torch.from_numpy((low + (high - low) * draw).astype(np.float32))


def normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 input of the golden vectors."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32))
