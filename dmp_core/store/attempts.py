"""A sample that fails does not affect the others: it is tried once more, then skipped if the settings allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from dmp_core.errors import MissingExtra, WrongSetting
from dmp_core.overlap import ahead, behind
from dmp_core.store import Sample, Skipped, sample_seed

Item = TypeVar("Item")
Keyed = TypeVar("Keyed", bound=tuple[str, Any])
Result = TypeVar("Result")
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
    try:
        return [*make(batch)]
    except SAMPLE_ERRORS as error:
        if not skips:
            raise
        _raise_if_general(error)
    return _each(batch, keys, make)


def overlapped(
    batches: Iterable[Sequence[Keyed]],
    compute: Callable[[Sequence[Keyed]], Sequence[Result]],
    encode: Callable[[str, Result], Sample],
    *,
    opened: Callable[[], object],
    skips: bool,
    workers: int,
) -> Iterator[Sample | Skipped]:
    """The samples of all batches, in order, as `batch_or_each` makes them of `compute` and then `encode`.

    While `compute` works on a batch in this thread, the next one is read and the last one encoded.

    batches: items that begin with their key.
    opened: called before each batch; its errors are not about a sample.
    workers: number of threads that encode.
    """

    def made(batch: Sequence[Keyed]) -> list[Sample]:
        return [encode(item[0], result) for item, result in zip(batch, compute(batch), strict=True)]

    def computed() -> Iterator[list[tuple[Keyed, Result | Exception]]]:
        for batch in ahead(batches):
            opened()
            try:
                yield [*zip(batch, compute(batch), strict=True)]
            except SAMPLE_ERRORS as error:
                if not skips:
                    raise
                yield [(item, error) for item in batch]

    def encoded(pair: tuple[Keyed, Result | Exception]) -> tuple[Keyed, Sample | Exception]:
        item, result = pair
        if isinstance(result, Exception):
            return item, result
        try:
            return item, encode(item[0], result)
        except SAMPLE_ERRORS as error:
            return item, error

    for futures in behind(computed(), encoded, workers):
        pairs = [future.result() for future in futures]
        error = next((found for _, found in pairs if isinstance(found, Exception)), None)
        if error is None:
            yield from (sample for _, sample in pairs if not isinstance(sample, Exception))
            continue
        if not skips:
            raise error
        _raise_if_general(error)
        batch = [item for item, _ in pairs]
        yield from _each(batch, [item[0] for item in batch], made)


def _each(
    batch: Sequence[Item], keys: Sequence[str], make: Callable[[Sequence[Item]], list[Sample]]
) -> list[Sample | Skipped]:
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
