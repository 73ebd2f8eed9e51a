"""Memory of the device: batches that shrink when it runs out, what artefacts share, and its release between stages."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.util import Finalize
from threading import Lock
from typing import Any, TypeVar

from dmp_core.errors import WrongSetting

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class SmallerBatches(Exception):
    """Memory ran out inside `Batches.alike`; the batches are halved by now."""


class Batches:
    """Work in batches that are halved whenever memory runs out, and never grow again.

    A sample's result may depend on the batch by rounding only.
    """

    def __init__(self, size: int, what: str, device: str, fix: str, *, item: str = "one sample") -> None:
        """For messages: `what` is the artefact or setting, `fix` names settings that need less memory."""
        self.first = self.size = size
        self.what, self.device, self.fix, self.item = what, device, fix, item
        self._alike = False

    def __call__(self, items: Sequence[Item], make: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """What `make` returns for consecutive parts of `items`, each as soon as it is done.

        Raises WrongSetting when not even one item fits into memory.
        """
        start = 0
        while start < len(items):
            part = items[start : start + self.size]
            made = _within_memory(make, part)
            if made is None:
                self._halve(len(part))
                continue
            yield made[0]
            start += len(part)

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Inside, all batches are of one size: raises SmallerBatches if memory runs out, to begin again."""
        before, self._alike = self._alike, True
        try:
            yield
        finally:
            self._alike = before

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Inside, lack of memory means that the model itself does not fit: raises WrongSetting."""
        try:
            yield
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise self._does_not_fit("the model") from None

    def _halve(self, failed: int) -> None:
        release_memory()
        if failed == 1:
            raise self._does_not_fit(self.item)
        self.size = failed // 2
        log.warning("%s: out of memory at a batch of %d; continuing with batches of %d", self.what, failed, self.size)
        if self._alike:
            raise SmallerBatches

    def _does_not_fit(self, what: str) -> WrongSetting:
        return WrongSetting(f"{self.what}: {what} does not fit into the memory of {self.device}; {self.fix}")


class Slot:
    """Keeps what an artefact worked with (a model, worker processes) for the next one that needs the same.

    It holds one thing at most, and whoever works with that has it alone: while it is lent, the slot is empty.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: tuple[tuple[str, str], ExitStack, Any] | None = None
        """Stage and key, what closes it, and the thing itself."""
        self._closed_at_exit = False

    @contextmanager
    def lend(
        self, stage: str, key: str, make: Callable[[], AbstractContextManager[Result]]
    ) -> Iterator[Callable[[], Result]]:
        """Inside, a function that returns what the slot holds under this key, or else what `make` opens, once.

        key: all that determines it. Anything else in the slot is closed before `make` is called. After an error in the
        block nothing is kept.
        """
        with ExitStack() as opened:
            lent: list[Result] = []

            def get() -> Result:
                if not lent:
                    lent.extend(self._take((stage, key), opened) or [opened.enter_context(make())])
                return lent[0]

            yield get
            if lent:
                self._replace(((stage, key), opened.pop_all(), lent[0]))

    def clear(self, *, but: str | None = None) -> None:
        """Close what it holds, and return its memory; `but` is a stage whose things may stay."""
        if self._kept is None or self._kept[0][0] != but:
            self._replace(None)

    def _take(self, key: tuple[str, str], owner: ExitStack) -> list[Any]:
        """What it holds under this key, which `owner` closes from now on; nothing otherwise, and the slot is empty."""
        with self._lock:
            if self._kept is not None and self._kept[0] == key:
                _, opened, thing = self._kept
                self._kept = None
                owner.push(opened)
                return [thing]
        self.clear()
        return []

    def _replace(self, new: tuple[tuple[str, str], ExitStack, Any] | None) -> None:
        with self._lock:
            kept, self._kept = self._kept, new
            if new is not None and not self._closed_at_exit:
                # Before a process joins its children at its end: worker processes wait for work until they are closed.
                Finalize(None, self.clear, exitpriority=10)
                self._closed_at_exit = True
        if kept is not None:
            kept[1].close()
            del kept
            release_memory()


SHARED = Slot()
"""What the stages' artefacts share in this process; `dmp_core.stages.execute` clears it between stages."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory ran out, in torch or in one of its libraries."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, Exception) and bool(should_reduce_batch_size(error))
    )


def release_memory() -> None:
    """Return what nothing refers to any more to the accelerator, reference cycles included, and Arrow's to the system.

    Without an accelerator nothing is collected: it takes 0.3 s, and the processor's memory is collected as it fills.
    """
    torch, arrow = sys.modules.get("torch"), sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()  # it keeps what writing a table took
    if torch is None:
        return
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        gc.collect()
        torch.mps.empty_cache()


def _within_memory(make: Callable[[Sequence[Item]], Result], part: Sequence[Item]) -> tuple[Result] | None:
    """The result, or None if memory does not suffice for these items."""
    try:
        return (make(part),)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return None  # this releases the error, and with it the tensors on the device
