"""The machine: its GPU, how fast that multiplies, and its memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dmp_core.runtime import RuntimeConfig

_TFLOPS = {
    "H100": (989, 494),
    "H200": (989, 494),
    "B200": (2250, 1100),
    "A100": (312, 156),
    "L40S": (362, 183),
    "L40": (181, 90),
    "L4": (121, 60),
    "A10": (125, 62),
    "A30": (165, 82),
    "A40": (150, 75),
    "A6000": (155, 77),
    "RTX 6000 Ada": (364, 182),
    "RTX 5090": (210, 105),
    "RTX 4090": (165, 82),
    "RTX 4080": (97, 49),
    "RTX 3090": (71, 36),
    "RTX 3080": (60, 30),
    "V100": (125, 16),
    "T4": (65, 8),
}
"""Part of a GPU's name → its maker's figures in 10¹² operations a second: half precision, float32 with TF32; dense."""
_REACHED = 0.18
"""Share of these figures that the networks reach: by public figures Stable Diffusion v1 takes 1.5 s per image on an
A100, with 50 guided steps in half precision."""
_PER_CORE = 0.05
"""10¹² operations a second that one processor core reaches in float32 (`make rehearsal` on two cores)."""


@dataclass(frozen=True)
class Speed:
    """10¹² operations a second that networks reach."""

    device: str
    half: float
    full: float


def find_gpu() -> tuple[str | None, float]:
    """(name, gigabytes) of the largest CUDA device; (None, 0) without one, or without torch."""
    try:
        import torch
    except ImportError:
        return None, 0.0
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    largest = max(devices, key=lambda device: device.total_memory, default=None)
    return (None, 0.0) if largest is None else (largest.name, largest.total_memory / 1e9)


def find_speed(runtime: RuntimeConfig) -> Speed | None:
    """The speed of the device that a run would use; None if it is unknown."""
    if runtime.device == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Speed(f"{cores} processor cores", cores * _PER_CORE, cores * _PER_CORE)
    return speed_of(find_gpu()[0] or "")


def speed_of(name: str) -> Speed | None:
    """The speed of a GPU with this name."""
    known = makers_figures(name)
    return None if known is None else Speed(name, known[0] * _REACHED, known[1] * _REACHED)


def makers_figures(name: str) -> tuple[int, int] | None:
    """10¹² operations a second that the maker states of a GPU with this name: half precision, and float32 with TF32."""
    words = name.replace("-", " ")
    known = [part for part in _TFLOPS if f" {part} " in f" {words} "]
    return _TFLOPS[max(known, key=len)] if known else None


def memory_gb() -> float:
    """Of this machine; 0 if it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return 0.0
