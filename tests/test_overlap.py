"""Reading runs ahead of the network and encoding behind it; events prove it, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Lock, get_ident

import pytest

from dmp_core.errors import InputError
from dmp_core.overlap import ahead, behind, in_threads
from dmp_core.store import Skipped
from dmp_core.store.attempts import overlapped

LONG = 30
"""Seconds after which a wait for another thread has failed."""


def test_the_next_item_is_made_while_one_is_used():
    made = [Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in ahead(items()):
        assert all(event.wait(LONG) for event in made[: number + 2])
    assert number == 2


def test_one_item_at_most_is_read_ahead():
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    for number in ahead(items()):
        assert len(read) <= number + 2
    assert read == list(range(100))


def test_the_next_batch_is_made_while_one_is_encoded():
    """Each item's encoding waits until the next batch has been made."""
    made = [Event() for _ in range(4)]
    made[-1].set()  # nothing comes after the last batch

    def batches() -> Iterator[list[int]]:
        for number in range(3):
            made[number].set()
            yield [number] * 2

    def encode(number: int) -> int:
        assert made[number + 1].wait(LONG)
        return number

    found = [future.result() for futures in behind(batches(), encode, workers=2) for future in futures]
    assert found == [0, 0, 1, 1, 2, 2]


def test_encoders_work_side_by_side():
    lock, at_once, most = Lock(), [0], [0]
    both = [Event(), Event()]

    def encode(number: int) -> int:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        both[number % 2].set()
        assert both[1 - number % 2].wait(LONG)
        with lock:
            at_once[0] -= 1
        return number

    batches = [[2 * number, 2 * number + 1] for number in range(3)]
    found = [[future.result() for future in futures] for futures in behind(batches, encode, workers=2)]
    assert found == batches
    assert most == [2]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_errors_of_reading_come_in_their_place(error):
    def items() -> Iterator[int]:
        yield 0
        raise error("here")

    seen = []
    with pytest.raises(error, match="here"):
        seen.extend(ahead(items()) if error is InputError else [*ahead(items())])
    read = ahead(items())
    assert next(read) == 0
    with pytest.raises(error, match="here"):
        next(read)


def test_leaving_early_reads_no_further():
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    stream = ahead(items())
    assert next(stream) == 0
    stream.close()
    assert len(read) <= 2


# ------------------------------------------------------------------------------ samples that fail
BATCHES = [[("a", 1), ("b", 2)], [("c", 3), ("d", 4)], [("e", 5)]]


def made(*, skips: bool, at: str, bad: tuple[int, ...]) -> tuple[list[object], list[int]]:
    """The samples of BATCHES doubled, where `bad` numbers fail at a step; and the sizes of the batches computed."""
    sizes, here = [], get_ident()

    def compute(batch):
        assert get_ident() == here  # torch's settings are this thread's
        sizes.append(len(batch))
        if at == "compute" and any(number in bad for _, number in batch):
            raise InputError("one is bad")
        return [2 * number for _, number in batch]

    def encode(key, double):
        if at == "encode" and double // 2 in bad:
            raise InputError("one is bad")
        return {"__key__": key, "double": double}

    def opened():
        if at == "opened":
            raise InputError("no model")

    found = overlapped(BATCHES, compute, encode, opened=opened, skips=skips, workers=2)
    names = [one.key if isinstance(one, Skipped) else (one["__key__"], one["double"]) for one in found]
    return names, sizes


def test_samples_come_in_order():
    expected = [("a", 2), ("b", 4), ("c", 6), ("d", 8), ("e", 10)]
    assert made(skips=False, at="encode", bad=()) == (expected, [2, 2, 1])


@pytest.mark.parametrize("at", ["compute", "encode"])
def test_a_bad_sample_is_skipped_and_its_batch_made_one_by_one(at):
    found, sizes = made(skips=True, at=at, bad=(3,))
    assert found == [("a", 2), ("b", 4), "c", ("d", 8), ("e", 10)]
    assert sorted(sizes) == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("at", ["compute", "encode"])
def test_a_bad_sample_is_an_error_where_none_may_fail(at):
    with pytest.raises(InputError, match="one is bad"):
        made(skips=False, at=at, bad=(3,))


def test_a_model_that_cannot_be_opened_is_no_fault_of_a_sample():
    with pytest.raises(InputError, match="no model"):
        made(skips=True, at="opened", bad=())


def test_threads_keep_the_order_and_take_some_items_at_a_time():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_threads(lambda number: number * 2, items())
    assert next(results) == 0
    assert len(taken) < 300
    assert list(results) == [number * 2 for number in range(1, 1000)]
