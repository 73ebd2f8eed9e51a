"""Data-parallel training: one process per GPU, each with its share of every batch; only the first one writes.

The processes may be on several machines, which start the same command (`dmp_core.training.nodes`).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

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
from dmp_core.training.nodes import Machine

Fit = Callable[[str, Progress], dict[str, Any]]
"""(device, progress) → details; both it and its result go to and from another process."""

_LOOK = 0.2
"""Seconds between two looks at the progress."""
_LOST = 5.0
"""Seconds in which the error of the process that ended first arrives."""
_MEET = timedelta(minutes=30)
"""In which all machines must have come."""


class Place(NamedTuple):
    """What a process needs to find the others."""

    local: int
    """Its number on this machine, of `here`."""
    here: int
    machine: Machine
    meeting: str
    """What all of them are named by: on one machine a file, otherwise the training."""
    device: str
    threads: int

    @property
    def rank(self) -> int:
        return self.machine.number * self.here + self.local

    @property
    def ranks(self) -> int:
        return self.machine.of * self.here


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


def fit_in_ranks(
    fit: Fit, ranks: int, device: str, progress: Progress, machine: Machine | None = None, name: str = ""
) -> dict[str, Any]:
    """Call `fit` in so many processes, which compute what one would, up to rounding; returns the first one's details.

    machine: of several, which call this together; `name` is then the training's, the same on all of them.

    Raises the first error of any of them, and RunError if one was killed or lost; the others are ended.
    """
    machine = machine or Machine()
    reports = get_context("spawn").SimpleQueue()
    threads = max(1, torch.get_num_threads() // ranks)
    with (
        tempfile.TemporaryDirectory() as folder,
        deferred_interrupts() as interrupts,
        worker_pool(ranks, partial(_report_to, reports)) as pool,
    ):
        meeting = f"{folder}/meeting" if machine.of == 1 else name
        places = [Place(rank, ranks, machine, meeting, device, threads) for rank in range(ranks)]
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
    os.environ |= {"RANK": str(place.rank), "LOCAL_RANK": str(place.local)}
    os.environ |= {"WORLD_SIZE": str(place.ranks), "LOCAL_WORLD_SIZE": str(place.here)}
    os.environ["OMP_NUM_THREADS"] = str(place.threads)  # accelerate would choose another number
    if place.device == "cuda":
        torch.cuda.set_device(place.local)
    if sys.platform == "linux" and place.machine.of == 1:
        # Otherwise the address of the machine's name, which may have none.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    _meet(place)
    try:
        # The first process defers signals itself, for one step, in which it needs the others.
        with deferred_interrupts(SAVING) if place.rank else nullcontext():
            return fit(place.device, _report)
    except RuntimeError as error:
        if place.machine.of == 1 or not _is_lost_connection(error):
            raise
        first = str(error).partition("\n")[0]
        raise RunError(
            f"training: the connection to the other machines was lost ({first}); "
            "run the same command on all of them again: it resumes from the last checkpoint"
        ) from None
    finally:
        dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "onnection" in str(error))


def _meet(place: Place) -> None:
    """Connect this process to all others. Raises RunError if a machine does not come, InputError if it is another."""
    backend, machine = "nccl" if place.device == "cuda" else "gloo", place.machine
    if machine.of == 1:
        dist.init_process_group(backend, init_method=f"file://{place.meeting}", rank=place.rank, world_size=place.ranks)
        return
    try:
        store = TCPStore(machine.host, machine.port, is_master=place.rank == 0, wait_for_workers=False, timeout=_MEET)
        own = PrefixStore(place.meeting, store)  # another training of these machines waits for its own
        if place.local == 0:
            own.set(f"processes of {machine.number}", str(place.here))
        found = [int(own.get(f"processes of {number}")) for number in range(machine.of)]
    except dist.DistError as error:
        raise RunError(
            f"training: not all of its {machine.of} machines came to {machine.host}:{machine.port} within "
            f"{_MEET.seconds // 60} minutes ({str(error).partition(chr(10))[0]}); run the same command on each"
        ) from None
    if len(set(found)) > 1:
        raise InputError(f"train.processes: the machines have {found} processes; set the same number on all")
    dist.init_process_group(backend, store=own, rank=place.rank, world_size=place.ranks)


def _report(done: int, total: int, message: str = "") -> None:
    _reports.put((done, total, message))
