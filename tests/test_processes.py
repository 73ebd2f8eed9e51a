"""Worker processes that are told to end, and variables for them."""

from __future__ import annotations

import atexit
import logging
import os
import time
from multiprocessing import get_context
from typing import Any

import pytest

from dmp_core.processes import environment_variable, unwinding_worker


def work(ready: Any) -> None:
    atexit.register(logging.getLogger("late").error, "failed with 13 pending items")
    with unwinding_worker():
        ready.set()
        time.sleep(60)


def test_a_worker_that_is_told_to_end_logs_no_errors_that_follow_from_it(capfd: pytest.CaptureFixture[str]) -> None:
    context = get_context("spawn")
    ready = context.Event()
    process = context.Process(target=work, args=(ready,))
    process.start()
    assert ready.wait(60)
    process.terminate()
    process.join(20)
    assert process.exitcode == 128 + 15
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("before", [None, "old"])
def test_a_variable_is_afterwards_as_before(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DMP_SOME", raising=False)
    if before:
        monkeypatch.setenv("DMP_SOME", before)
    with environment_variable("DMP_SOME", "new"):
        assert os.environ["DMP_SOME"] == "new"
    assert os.environ.get("DMP_SOME") == before
