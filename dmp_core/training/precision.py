"""Mixed precision that does no harm where the processor lacks it, and the kernels that suit it."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, TypeVar

import torch

from dmp_core.training.settings import FitConfig

F = TypeVar("F", bound=FitConfig)

logger = logging.getLogger(__name__)


def autocast_bf16(device: str | torch.device, enabled: bool, cache_enabled: bool = True) -> AbstractContextManager[Any]:
    """`torch.autocast` in bfloat16; in full precision, with one notice, on processors without its instructions.

    There bfloat16 is emulated, which saves nothing, and gradients of small convolutions come out as NaN now and then
    (seen with torch 2.15 and AVX-512 without BF16).
    """
    enabled = enabled and not _emulates_bf16(device)
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


def within_reach(config: F, device: str | torch.device) -> F:
    """The same settings, but in full precision, with one notice, where bfloat16 is asked for and emulated."""
    emulated = config.mixed_precision == "bf16" and _emulates_bf16(device)
    return config.model_copy(update={"mixed_precision": "no"}) if emulated else config


@contextmanager
def fast_kernels(
    networks: Iterable[Any], device: str | torch.device, dtype: torch.dtype, positions: int
) -> Iterator[None]:
    """Meanwhile, diffusers' networks are trained by the kernels that are fastest there; results differ by rounding.

    Convolutions go by pixels rather than channels (channels last). On a CPU, attention in bfloat16 goes step by step:
    the backward pass of torch's fused kernel takes five times as long there (`benchmarks.finetune`).

    positions: of the latents, height times width; beyond 1,024 of them the fused kernel stays, to spare memory.
    """
    from diffusers.models.attention_processor import AttnProcessor

    stepwise = torch.device(device).type == "cpu" and dtype == torch.bfloat16 and positions <= 1024
    before = [(network, network.attn_processors) for network in networks]
    for network, _ in before:
        network.to(memory_format=torch.channels_last)
        if stepwise:
            network.set_attn_processor(AttnProcessor())
    try:
        yield
    finally:
        for network, processors in before:
            network.to(memory_format=torch.contiguous_format)
            network.set_attn_processor(processors)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Let this process reuse what large tensors on the CPU gave back, rather than return it to the system every time.

    Fetching it anew costs a page fault for every 4 kB. Without glibc nothing changes.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that it takes
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _emulates_bf16(device: str | torch.device) -> bool:
    return torch.device(device).type == "cpu" and not _processor_has_bf16()


@cache
def _processor_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    has = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    if not has:
        logger.warning("this processor has no bfloat16 instructions: training in float32 instead")
    return has
