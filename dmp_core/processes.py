"""Worker processes that end with their run."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

GRACE = 2.0
"""Seconds that a worker gets to release its locks and remove its temporary files."""
SAVING = 3.0
"""Seconds that a worker gets before, to finish a training step and save a checkpoint."""
_ONE_PRESS = 0.5
"""Seconds within which a second SIGINT is the same Ctrl-C."""


class Interrupted(SystemExit):
    """A signal ends this process; the exit code is 128 plus the signal's number."""


@contextmanager
def worker_pool(workers: int, prepare: Callable[[], object] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Worker processes on this machine; if the block ends early, they are ended immediately.

    They are spawned, since torch and the renderer do not survive a fork. `prepare` runs first in each of them.
    """
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start, initargs=(prepare,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_workers(pool)
        raise
    pool.shutdown()


def _start(prepare: Callable[[], object] | None) -> None:
    end_with_parent()
    if prepare:
        prepare()


def end_workers(pool: object) -> None:
    """Send SIGTERM to the processes of a ProcessPoolExecutor, then SIGKILL to those that still run."""
    # From Python 3.14 on, ProcessPoolExecutor.terminate_workers and kill_workers do this.
    processes: list[BaseProcess] = list((getattr(pool, "_processes", None) or {}).values())
    for process in processes:
        process.terminate()
    until = time.monotonic() + SAVING + 0.5
    while (alive := [process for process in processes if process.is_alive()]) and time.monotonic() < until:
        wait([process.sentinel for process in alive], timeout=until - time.monotonic())
    for process in alive:
        process.kill()


class DeferredInterrupts:
    """Keeps the first signal that would end this process, until it is delivered."""

    def __init__(self, seconds: float | None) -> None:
        self.number: int | None = None
        self._seconds = seconds
        self._received = 0.0
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._received = number, time.monotonic()
            if self._seconds is not None:
                _exit_after(self._seconds, 128 + number)
        elif number == signal.SIGINT and time.monotonic() - self._received > _ONE_PRESS:
            self.deliver()

    def deliver(self) -> None:
        """Let a kept signal act as it would have acted without this; usually that raises."""
        if self.number is None:
            return
        number, self.number = self.number, None
        before = self._before[number]
        self.stop()
        # Not sent again: threads that watch the signals have noticed the first one.
        if callable(before):
            before(number, None)
        else:
            signal.raise_signal(number)

    def stop(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}


@contextmanager
def deferred_interrupts(seconds: float | None = None) -> Iterator[DeferredInterrupts]:
    """SIGTERM, SIGHUP and the first Ctrl-C take effect at the block's end, or at `deliver`.

    Does nothing outside the main thread, where signals do not arrive. seconds: after which the process ends anyway.
    """
    interrupts = DeferredInterrupts(seconds)
    if threading.current_thread() is threading.main_thread():
        interrupts.start()
    try:
        yield interrupts
    finally:
        interrupts.deliver()
        interrupts.stop()


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Inside, this process and those that it starts have this variable; afterwards it is as before."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        os.environ.update({} if before is None else {name: before})


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes started in this block get no SIGINT: a terminal sends it to all, and their parent ends them.

    It is blocked rather than ignored, so that this process misses none: its other threads still receive it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Call this in a new process: it ends the process with its parent, which may be killed without ending it."""
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def unwinding_worker() -> Iterator[None]:
    """In a pool's process, let SIGTERM run this block's `finally` clauses before it ends the process.

    The exception never reaches the pool, which would treat it as a result. Does nothing in the main process.
    """
    if parent_process() is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _unwind)
    try:
        yield
    except Interrupted as error:
        end_now(int(str(error.code)))
    finally:
        signal.signal(signal.SIGTERM, before)


def _unwind(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    logging.disable()  # all later failures have this cause
    _exit_after(GRACE, 128 + number)  # in case the exception is caught
    signal_all(descendants(os.getpid()), signal.SIGKILL)
    raise Interrupted(128 + number)


def end_now(code: int, seconds: float = GRACE) -> NoReturn:
    """End this process from any thread, whatever the others do; its locks get `seconds` to be released."""
    _exit_after(seconds, code)
    atexit._run_exitfuncs()
    os._exit(code)


def _exit_after(seconds: float, code: int) -> None:
    limit = threading.Timer(seconds, os._exit, [code])
    limit.daemon = True
    limit.start()


def descendants(pid: int) -> list[int]:
    """Ids of a process's children and of all their descendants; empty without /proc."""
    started: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                started.setdefault(int(parent), []).append(int(file.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = started.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
