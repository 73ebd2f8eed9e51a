"""Whether weights are numbers: one NaN or infinity spoils whatever is computed with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dmp_core.errors import InputError


def find_non_finite(tree: Any) -> str | None:
    """The dotted name of the first tensor or float that holds NaN or infinity, None if there is none.

    tree: tensors and plain values in nested mappings and sequences.
    """
    return next((name for name, leaf in _leaves(tree, "") if not _is_finite(leaf)), None)


def check_finite(weights: Mapping[str, Tensor], what: str) -> None:
    """Called before weights are written. Raises InputError that names the first that holds NaN or infinity."""
    if (name := find_non_finite(weights)) is not None:
        raise InputError(
            f"{what}: {name} holds NaN or infinity, so nothing was written; lower the learning rate, train in full "
            "precision, or store in float32"
        )


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        parts: Any = tree.items()
    elif isinstance(tree, list | tuple):
        parts = enumerate(tree)
    else:
        yield name, tree
        return
    for key, part in parts:
        yield from _leaves(part, f"{name}.{key}" if name else str(key))


def _is_finite(leaf: Any) -> bool:
    if isinstance(leaf, Tensor):
        # The two ends are NaN if any element is; without a mask of the tensor's size.
        return not (leaf.is_floating_point() and leaf.numel()) or bool(torch.stack(leaf.aminmax()).isfinite().all())
    return not isinstance(leaf, float) or math.isfinite(leaf)
