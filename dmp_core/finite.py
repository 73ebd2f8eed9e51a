"""Checks for NaN and infinity in weights and in networks' outputs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dmp_core.errors import InputError, NotFinite

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

ADVICE = "is the adapter or the base model damaged, or is the precision too low (sampling.dtype=float32)?"


def check_weights(tensors: Mapping[str, Tensor], file: str | Path) -> None:
    """Check weights after reading. Raises InputError with the file and the first tensor with NaN or infinity."""
    if (name := find_non_finite(tensors)) is not None:
        raise InputError(f"{file}: tensor {name} holds NaN or infinity; fetch the file again, or train again")


def check_before_writing(weights: Mapping[str, Tensor], what: str) -> None:
    """Raises InputError that names the first tensor with NaN or infinity."""
    if (name := find_non_finite(weights)) is not None:
        raise InputError(
            f"{what}: {name} holds NaN or infinity, so nothing was written; lower the learning rate, train in full "
            "precision, or store in float32"
        )


def check_parts(parts: Mapping[str, Any], place: str | Path) -> None:
    """`check_weights` for a model's networks, by the names of their folders; other parts are ignored."""
    for part, network in parts.items():
        if isinstance(network, torch.nn.Module):
            check_weights(network.state_dict(), _weights_file(Path(place) / part))


def check_outputs(batch: Tensor, advice: str = ADVICE) -> None:
    """Raise `NotFinite` for the first sample of a batch (B, …) with NaN or infinity."""
    if is_finite(batch):
        return
    index = next(number for number, sample in enumerate(batch) if not is_finite(sample))
    raise NotFinite(index, f"the model's output holds NaN or infinity; {advice}")


def finite_predictions(
    items: Sequence[Item],
    names: Sequence[str],
    predict: Callable[[Sequence[Item]], Iterable[Result]],
    in_float32: Callable[[Sequence[Item]], Iterable[Result]],
) -> list[Result]:
    """`predict(items)`; an item for which that raises `NotFinite` is predicted once more, alone, by `in_float32`.

    Raises `NotFinite` with the item's name if that fails too.
    """
    if not items:
        return []
    try:
        return [*predict(items)]
    except NotFinite as error:
        index, reason = error.index, str(error.named(names))
    log.warning("%s; predicting it again in float32", reason)
    try:
        again = in_float32(items[index : index + 1])
    except NotFinite as error:
        raise error.named(names[index : index + 1]) from None
    before = finite_predictions(items[:index], names[:index], predict, in_float32)
    return [*before, *again, *finite_predictions(items[index + 1 :], names[index + 1 :], predict, in_float32)]


def find_non_finite(tree: Any) -> str | None:
    """The dotted name of the first tensor or float with NaN or infinity; None if there is none.

    tree: tensors and plain values in nested mappings and sequences.
    """
    return next((name for name, leaf in _leaves(tree, "") if not is_finite(leaf)), None)


def is_finite(leaf: Any) -> bool:
    """Whether a tensor (checked without a mask of its size) or a number is finite; True for anything else."""
    if not isinstance(leaf, Tensor):
        return not isinstance(leaf, float) or math.isfinite(leaf)
    if not (leaf.is_floating_point() and leaf.numel()):
        return True
    wide = leaf.float() if leaf.element_size() == 1 else leaf  # 8-bit formats have no comparisons
    low, high = torch.aminmax(wide.detach())
    return bool(low.isfinite() and high.isfinite())


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


def _weights_file(folder: Path) -> Path:
    """The folder's only file of weights, or the folder itself."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return files[0] if len(files) == 1 else folder
