"""`Slot`: what one artefact leaves to the next one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from threading import Barrier

import pytest

from dmp_core.memory import Slot
from dmp_core.processes import worker_pool


class Models:
    """Opens models that are numbered, and records when each is opened and closed."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator[str]:
        name = f"model {sum('open' in event for event in self.events)}"
        self.events.append(f"open {name}")
        yield name
        self.events.append(f"close {name}")


@pytest.fixture
def models() -> Models:
    return Models()


def used(slot: Slot, models: Models, stage: str, key: str) -> str:
    with slot.lend(stage, key, models) as model:
        assert model() == model()
        return model()


def test_the_same_key_gets_the_same_thing_and_another_one_closes_it_first(models):
    slot = Slot()
    assert [used(slot, models, "labels", key) for key in "aab"] == ["model 0", "model 0", "model 1"]
    assert models.events == ["open model 0", "close model 0", "open model 1"]


def test_nothing_is_opened_before_it_is_used(models):
    slot = Slot()
    used(slot, models, "labels", "a")
    with slot.lend("labels", "b", models):
        pass
    assert models.events == ["open model 0"]


def test_clearing_closes_it_unless_it_is_of_that_stage(models):
    slot = Slot()
    used(slot, models, "labels", "a")
    slot.clear(but="labels")
    assert used(slot, models, "labels", "a") == "model 0"
    slot.clear(but="predict")
    assert models.events == ["open model 0", "close model 0"]
    slot.clear()
    assert used(slot, models, "predict", "a") == "model 1"


def test_after_an_error_nothing_is_kept():
    slot, errors = Slot(), []

    @contextmanager
    def make() -> Iterator[int]:
        try:
            yield 1
        except KeyboardInterrupt as error:
            errors.append(error)
            raise

    def interrupted() -> None:
        with slot.lend("images", "a", make) as pool:
            pool()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(errors) == 1  # worker processes are ended by it
    slot.clear()


def test_threads_never_share_it(models):
    slot, both = Slot(), Barrier(2, timeout=30)

    def work(_: int) -> str:
        with slot.lend("labels", "a", models) as model:
            name = model()
            both.wait()
            return name

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(work, range(2))) == ["model 0", "model 1"]
    assert sum("close" in event for event in models.events) == 1
    slot.clear()
    assert sum("close" in event for event in models.events) == 2


def keep_a_pool() -> None:
    with Slot().lend("images", "a", partial(worker_pool, 1)) as pool:
        assert pool().submit(int, "7").result() == 7


def test_a_process_that_keeps_worker_processes_ends() -> None:
    """One of `multiprocessing` joins its own at its end."""
    process = get_context("spawn").Process(target=keep_a_pool)
    process.start()
    process.join(120)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()
