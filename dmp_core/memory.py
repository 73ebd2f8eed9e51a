"""Memory of the device: batches that shrink when it runs out, and its release between stages."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

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


def out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory ran out, in torch or in one of its libraries."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, Exception) and bool(should_reduce_batch_size(error))
    )


def release_memory() -> None:
    """Return what nothing refers to any more to the accelerator, reference cycles included.

    Without one nothing is done: a collection takes 0.3 s, and the processor's memory is collected as it fills.
    """
    torch = sys.modules.get("torch")
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
