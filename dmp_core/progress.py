"""Progress reporting: stages call `progress(done, total, message)`; the caller decides who receives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Progress(Protocol):
    """Called after each finished unit of work; must be cheap."""

    def __call__(self, done: int, total: int, message: str = "") -> None: ...


class Listener(Protocol):
    """Receives the progress of every stage of a run; the command line shows bars, a log writes lines."""

    def started(self, name: str) -> None: ...

    def advanced(self, name: str, done: int, total: int, message: str) -> None: ...

    def finished(self, name: str, seconds: float, cached: bool) -> None: ...


def silent(done: int, total: int, message: str = "") -> None:
    """Ignore progress."""


_listener: ContextVar[Listener | None] = ContextVar("dmp_listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Send the progress of stages in this context (and in threads that inherit it) to `listener`, or to nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener | None:
    return _listener.get()
