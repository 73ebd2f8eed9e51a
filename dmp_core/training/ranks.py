"""Data-parallel training: one process per GPU, each with its share of every batch; only the first one writes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist

from dmp_core.errors import InputError, RunError
from dmp_core.processes import (
    SAVING,
    DeferredInterrupts,
    deferred_interrupts,
    end_workers,
    without_interrupts,
    worker_pool,
)
from dmp_core.progress import Progress

Fit = Callable[[str, Progress], dict[str, Any]]
"""(device, progress) → details; both it and its result go to and from another process."""

_LOOK = 0.2
"""Seconds between two looks at the progress."""
_LOST = 5.0
"""Seconds in which the error of the process that ended first arrives."""


class Place(NamedTuple):
    """What a process needs to find the others."""

    rank: int
    ranks: int
    meeting: str
    """A file that exists for all of them."""
    device: str
    threads: int


def ranks_on(device: str, processes: int | Literal["auto"]) -> int:
    """Number of processes; `auto`: one per visible GPU, one on a CPU. Raises InputError when GPUs are missing."""
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    if processes == "auto":
        return max(1, gpus)
    if device == "cuda" and processes > gpus:
        raise InputError(
            f"train.processes: {processes} processes need as many GPUs, and {gpus} are visible; "
            "lower it, set it to auto, or make more visible (CUDA_VISIBLE_DEVICES)"
        )
    return processes


def fit_in_ranks(fit: Fit, ranks: int, device: str, progress: Progress) -> dict[str, Any]:
    """Call `fit` in so many processes, which compute what one would, up to rounding; returns the first one's details.

    Raises the first error of any of them, and RunError if one was killed; the others are ended.
    """
    reports = get_context("spawn").SimpleQueue()
    threads = max(1, torch.get_num_threads() // ranks)
    with (
        tempfile.TemporaryDirectory() as folder,
        deferred_interrupts() as interrupts,
        worker_pool(ranks, partial(_report_to, reports)) as pool,
    ):
        places = [Place(rank, ranks, f"{folder}/meeting", device, threads) for rank in range(ranks)]
        with without_interrupts():
            futures = [pool.submit(_rank, fit, place) for place in places]
        _until_done(futures, reports, progress, interrupts)
        if interrupts.number:
            end_workers(pool)  # before this process: they save a checkpoint
            interrupts.deliver()
    return futures[0].result()


def _until_done(
    futures: Sequence[Future[Any]], reports: Any, progress: Progress, interrupts: DeferredInterrupts
) -> None:
    """Wait for all, or for a signal."""
    left = set(futures)
    while left and not interrupts.number:
        done, left = wait(left, timeout=_LOOK, return_when=FIRST_COMPLETED)
        while not reports.empty():
            progress(*reports.get())
        if errors := [error for future in done if (error := future.exception()) is not None]:
            raise _cause(errors, left, len(futures))


def _cause(errors: Sequence[BaseException], left: Iterable[Future[Any]], ranks: int) -> BaseException:
    """The error that ended all: the others lose their connection to that process, and may notice it earlier."""
    if not isinstance(errors[0], InputError):
        later = [future.exception() for future in wait(left, timeout=_LOST).done]
        errors = [*errors, *(error for error in later if error is not None)]
    if any(isinstance(error, BrokenExecutor) for error in errors):
        return RunError(
            f"training: one of its {ranks} processes was killed, perhaps for lack of memory; lower "
            "train.processes or train.batch_size, or run again: it resumes from the last checkpoint"
        )
    return min(errors, key=lambda error: (not isinstance(error, InputError), type(error) is RuntimeError))


# ----------------------------------------------------------------------------- in each process
_reports: Any = None


def _report_to(queue: Any) -> None:
    """Prepares a process: a queue can only be passed on while the process starts."""
    global _reports
    _reports = queue


def _rank(fit: Fit, place: Place) -> dict[str, Any]:
    torch.set_num_threads(place.threads)
    rank, ranks = str(place.rank), str(place.ranks)
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ["OMP_NUM_THREADS"] = str(place.threads)  # accelerate would choose another number
    if place.device == "cuda":
        torch.cuda.set_device(place.rank)
    if sys.platform == "linux":
        os.environ.setdefault(
            "GLOO_SOCKET_IFNAME", "lo"
        )  # otherwise the address of the machine's name, which may have none
    dist.init_process_group(
        "nccl" if place.device == "cuda" else "gloo",
        init_method=f"file://{place.meeting}",
        rank=place.rank,
        world_size=place.ranks,
    )
    try:
        # The first process defers signals itself, for one step, in which it needs the others.
        with deferred_interrupts(SAVING) if place.rank else nullcontext():
            return fit(place.device, _report)
    finally:
        dist.destroy_process_group()


def _report(done: int, total: int, message: str = "") -> None:
    _reports.put((done, total, message))
