"""Mixed precision that does no harm where the processor lacks it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch

logger = logging.getLogger(__name__)


def autocast_bf16(device: str | torch.device, enabled: bool, cache_enabled: bool = True) -> AbstractContextManager[Any]:
    """`torch.autocast` in bfloat16; in full precision, with one notice, on processors without its instructions.

    There bfloat16 is emulated, which saves nothing, and gradients of small convolutions come out as NaN now and then
    (seen with torch 2.15 and AVX-512 without BF16).
    """
    kind = torch.device(device).type
    enabled = enabled and (kind != "cpu" or _processor_has_bf16())
    return torch.autocast(kind, torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


@cache
def _processor_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    has = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    if not has:
        logger.warning("this processor has no bfloat16 instructions: training in float32 instead")
    return has
