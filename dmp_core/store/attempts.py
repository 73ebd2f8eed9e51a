"""A sample that fails does not affect the others: it is tried once more, then skipped if the settings allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from dmp_core.errors import MissingExtra, WrongSetting
from dmp_core.store import Sample, Skipped, sample_seed

Item = TypeVar("Item")
Errors = tuple[type[Exception], ...]

SAMPLE_ERRORS: Errors = (ValueError, ArithmeticError)
"""Raised by decoding, prediction or encoding because of one sample; includes InputError and NotFinite. Running out of
memory or disk, a lost lock or a signal are not among them."""


def first_that_works(
    key: str, tries: Iterable[Callable[[], Sample]], errors: Errors = SAMPLE_ERRORS
) -> Sample | Skipped:
    """The sample from the first attempt that raises none of these errors; else the reason of the last attempt."""
    reason = Skipped(key, "nothing was tried")
    for make in tries:
        try:
            return make()
        except errors as error:
            _raise_if_general(error)
            reason = Skipped.of(key, error)
    return reason


def batch_or_each(
    batch: Sequence[Item], keys: Sequence[str], make: Callable[[Sequence[Item]], list[Sample]], *, skips: bool
) -> list[Sample | Skipped]:
    """The samples of a batch; if it fails, each sample is tried alone, and those that fail again are skipped.

    skips: if False, the batch's error is raised.
    """
    if not skips:
        return [*make(batch)]
    try:
        return [*make(batch)]
    except SAMPLE_ERRORS as error:
        _raise_if_general(error)
    return [first_that_works(key, [partial(_alone, make, item)]) for key, item in zip(keys, batch, strict=True)]


def _alone(make: Callable[[Sequence[Item]], list[Sample]], item: Item) -> Sample:
    return make([item])[0]


def next_seed(seed: int) -> int:
    """The seed for a second attempt at a generated sample whose own seed failed."""
    return sample_seed(seed, "again")


def _raise_if_general(error: Exception) -> None:
    """Raise errors that every sample would cause; they are not about this one."""
    if isinstance(error, MissingExtra | WrongSetting):
        raise error
