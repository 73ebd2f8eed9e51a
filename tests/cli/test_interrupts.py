"""SIGINT, SIGTERM and SIGHUP end a command within seconds, whatever its main thread does meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmp_core.cli.interrupts import LINE, UNWINDING
from dmp_core.processes import GRACE, descendants

ROOT = Path(__file__).resolve().parents[2]

# The main thread runs `work`; a line "ready" reports that it has begun.
PROGRAM = """
import atexit, contextlib, os, signal, subprocess, sys, threading, time
from dmp_core.cli.interrupts import Interrupts

def ready():
    print("ready", flush=True)

@contextlib.contextmanager
def cleaned():
    try:
        yield
    finally:
        print("cleaned", flush=True)

{work}

with Interrupts():
    work()
print("continued", flush=True)
"""

SLEEPS = """
def work():
    with cleaned():
        ready()
        time.sleep(60)
"""
IN_A_DESTRUCTOR = """
class Slow:
    def __del__(self):
        ready()
        time.sleep(0.5)

def work():
    with cleaned():
        Slow()
        time.sleep(60)
"""
SWALLOWED = """
def work():
    steps = iter([ready])
    while True:
        try:
            next(steps, lambda: time.sleep(60))()
        except BaseException:
            pass
"""
DEADLOCK = """
def work():
    lock = threading.Lock()
    lock.acquire()
    try:
        ready()
        time.sleep(60)
    finally:
        while not lock.acquire(timeout=1):
            pass
"""
AT_ITS_END = """
def work():
    threading.Thread(target=time.sleep, args=[60]).start()
    atexit.register(print, "at exit", flush=True)
    ready()
    time.sleep(60)
"""
ANOTHER_ERROR = """
def work():
    try:
        ready()
        time.sleep(60)
    finally:
        raise ValueError("since its worker was ended")
"""
LATER_ERRORS = """
def fail(*_):
    raise OSError(9, "Bad file descriptor")

def work():
    atexit.register(fail)
    threading._register_atexit(fail)  # as process pools do
    try:
        ready()
        time.sleep(60)
    finally:
        failing = threading.Thread(target=fail)
        failing.start()
        failing.join()
"""
BY_ANOTHER_HANDLER = """
class Signalled(BaseException):
    pass

def another(*_):
    raise Signalled

class Busy:
    def __del__(self):
        busy()

def busy():
    ready()
    while True:  # no other thread runs, so the watching one notes the signal after the handler
        pass

def work():
    sys.setswitchinterval(10)
    signal.signal(signal.SIGTERM, another)
    {work}
    time.sleep(60)
"""
DONE = """
class Large:
    def __del__(self):
        os.write(1, b"ready\\n")
        time.sleep(1)

def work():
    globals()["large"] = Large()
"""
WITH_CHILDREN = """
def work():
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    deaf = "import signal, time; signal.signal(15, lambda *_: None); time.sleep(1000)"
    subprocess.Popen([sys.executable, "-c", deaf])
    ready()
    time.sleep(60)
"""


def launch(work: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{work}", work)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def start(work: str) -> subprocess.Popen[str]:
    process = launch(work)
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], *signals: int) -> tuple[int, float, str]:
    """(exit code, seconds, standard output) after the signals, with the one line on standard error."""
    begun = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.8 if len(signals) > 1 else 0)
    out, err = process.communicate(timeout=60)
    assert err == f"{LINE}\n"
    return process.returncode, time.monotonic() - begun, out


def is_running(pid: int) -> bool:
    """A process that its parent has not waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("work", [SLEEPS, IN_A_DESTRUCTOR])
def test_a_signal_unwinds_even_if_a_destructor_swallows_it(work, number):
    code, seconds, out = end(start(work), number)
    assert (code, out) == (128 + number, "cleaned\n")
    assert seconds < UNWINDING


def test_a_process_that_does_not_unwind_is_ended():
    processes = [start(work) for work in (SWALLOWED, DEADLOCK, AT_ITS_END)]
    with ThreadPoolExecutor() as pool:  # each takes as long as the limit
        ended = [*pool.map(lambda process: end(process, signal.SIGTERM), processes)]
    assert [(code, out) for code, _, out in ended] == [(143, ""), (143, ""), (143, "at exit\n")]
    assert all(UNWINDING - 0.5 < seconds < UNWINDING + GRACE + 2 for _, seconds, _ in ended)


def test_a_second_ctrl_c_ends_immediately():
    code, seconds, _ = end(start(SWALLOWED), signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert seconds < 4


def test_signals_that_are_repeated_do_not_cut_the_unwinding_short():
    work = SLEEPS.replace(
        "        time.sleep(60)",
        "        try:\n            time.sleep(60)\n        finally:\n            time.sleep(2)",
    )
    code, _, out = end(start(work), signal.SIGTERM, signal.SIGTERM)
    assert (code, out) == (143, "cleaned\n")


def test_any_error_after_a_signal_is_an_interruption():
    assert end(start(ANOTHER_ERROR), signal.SIGINT)[0] == 130


def test_later_errors_of_threads_and_at_exit_print_nothing():
    assert end(start(LATER_ERRORS), signal.SIGINT)[0] == 130


@pytest.mark.parametrize("work", ["busy()", "Busy()"])
def test_a_handler_that_raises_before_the_signal_is_noted_prints_nothing(work):
    """As Prefect's; in a destructor, too."""
    assert end(start(BY_ANOTHER_HANDLER.replace("{work}", work)), signal.SIGTERM)[0] == 143


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_after_the_work_is_done_changes_nothing(number):
    process = launch(DONE)
    assert [process.stdout.readline() for _ in range(2)] == ["continued\n", "ready\n"]
    process.send_signal(number)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


def test_no_child_is_left():
    process = start(WITH_CHILDREN)
    until = time.monotonic() + 10
    while len(children := descendants(process.pid)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(children) == 3
    time.sleep(0.5)  # for the one that ignores SIGTERM
    assert end(process, signal.SIGTERM)[0] == 143
    until = time.monotonic() + 5  # the kernel ends them; on a busy machine that takes a moment
    while any(map(is_running, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in children if is_running(pid)]


def test_a_signal_that_is_ignored_stays_so():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{work}", SLEEPS.replace("60", "2"))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)],
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "cleaned\ncontinued\n"
    assert process.returncode == 0
