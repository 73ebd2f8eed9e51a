"""Copies from the host to the device that training does not wait for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: str | torch.device) -> Tensor:
    """The tensor on the device. To a GPU with its own memory it is copied from pinned memory: the host does not wait.

    A batch of latents is a megabyte: keeping all of them on the device would save nothing that can be measured.
    """
    if torch.device(device).type in ("cpu", "mps"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
