"""One sample's failure is kept apart from its neighbours': tried once more, then skipped, if the settings say so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from dmp_core.errors import MissingExtra, WrongSetting
from dmp_core.store import Sample, Skipped, sample_seed

Item = TypeVar("Item")
Errors = tuple[type[Exception], ...]

SAMPLE_ERRORS: Errors = (ValueError, ArithmeticError)
"""What decoding, a network's answer or encoding raise about one sample, InputError and NotFinite among them. Running
out of memory or disk, a lost lock or a signal is none of these."""


def first_that_works(
    key: str, tries: Iterable[Callable[[], Sample]], errors: Errors = SAMPLE_ERRORS
) -> Sample | Skipped:
    """The sample by the first try that raises none of these errors; else the last one's reason."""
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
    """The samples of a batch; if that fails, each is tried alone, and what fails then is skipped.

    skips: False lets the batch's error out, untried.
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
    """From which a generated sample is made when its own seed fails."""
    return sample_seed(seed, "again")


def _raise_if_general(error: Exception) -> None:
    """What fails for every sample alike is not about this one."""
    if isinstance(error, MissingExtra | WrongSetting):
        raise error
