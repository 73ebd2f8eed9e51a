"""Numbers that are none: NaN and infinity in weights and in what networks answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmp_core.errors import InputError, NotFinite

ADVICE = "is the adapter or the base model damaged, or is the precision too low (sampling.dtype=float32)?"


def check_weights(tensors: Mapping[str, Tensor], file: str | Path) -> None:
    """Raise InputError that names the file and the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise InputError(f"{file}: tensor {name} holds NaN or infinity; fetch the file again, or train again")


def check_parts(parts: Mapping[str, Any], place: str | Path) -> None:
    """`check_weights` of a model's networks, by the names of their folders; of others than networks nothing."""
    for part, network in parts.items():
        if isinstance(network, torch.nn.Module):
            check_weights(network.state_dict(), _weights_file(Path(place) / part))


def check_outputs(batch: Tensor, advice: str = ADVICE) -> None:
    """Raise `NotFinite` for the first sample of a batch (B, …) that holds NaN or infinity."""
    if is_finite(batch):
        return
    index = next(number for number, sample in enumerate(batch) if not is_finite(sample))
    raise NotFinite(index, f"the model's output holds NaN or infinity; {advice}")


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; without a mask of the tensor's size."""
    if not (tensor.is_floating_point() and tensor.numel()):
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # there are no comparisons in 8 bits
    low, high = torch.aminmax(wide.detach())
    return bool(low.isfinite() and high.isfinite())


def _weights_file(folder: Path) -> Path:
    """The only file of weights in it, or the folder itself."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return files[0] if len(files) == 1 else folder
