"""Mixed precision where the processor supports it, and the kernels that are fastest with it."""

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
    """`torch.autocast` in bfloat16; in full precision, with one log message, on processors without its instructions.

    There bfloat16 is emulated, which saves nothing, and gradients of small convolutions are sometimes NaN
    (seen with torch 2.15 and AVX-512 without BF16).
    """
    enabled = enabled and not _emulates_bf16(device)
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


def without_emulated_bf16(config: F, device: str | torch.device) -> F:
    """The same settings, in full precision, with one log message, where bfloat16 is requested but would be emulated."""
    emulated = config.mixed_precision == "bf16" and _emulates_bf16(device)
    return config.model_copy(update={"mixed_precision": "no"}) if emulated else config


@contextmanager
def fast_kernels(
    networks: Iterable[Any], device: str | torch.device, dtype: torch.dtype, positions: int
) -> Iterator[None]:
    """Inside, diffusers' networks are trained by the fastest kernels of the device; results differ by rounding.

    Convolutions use channels-last memory. On a CPU, attention in bfloat16 is computed step by step:
    the backward pass of torch's fused kernel takes five times as long there (`benchmarks.finetune`).

    positions: of the latents, height times width; above 1,024 the fused kernel stays, to save memory.
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


@contextmanager
def matrix_products(tf32: bool) -> Iterator[None]:
    """Inside, float32 matrix products of a GPU use TF32, or not; PyTorch's default for them is not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed large CPU tensors instead of returning it to the system each time.

    Requesting it again costs a page fault per 4 kB. Without glibc nothing changes.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest value allowed
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
