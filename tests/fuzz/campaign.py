"""Runs a check on damaged input: a few dozen examples in the suite, for minutes with `make fuzz FUZZ_MINUTES=30`.

Failing examples are saved in `tests/data/fuzz/<name>/`, one file each, and run first in later campaigns.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MINUTES = float(os.environ.get("DMP_FUZZ_MINUTES", "0"))
CORPUS = Path(__file__).parents[1] / "data" / "fuzz"
LONGEST = 60
"""Seconds that one example may take, on a busy machine; more counts as a hang."""

Check = Callable[[bytes], None]


class Hang(BaseException):
    """Not an Exception, which the code under test may report as a damaged file."""


def fuzz(check: Check, examples: st.SearchStrategy[bytes], corpus: str, count: int = 40) -> None:
    """Run `check` on earlier finds, then on `count` examples, the same ones each time; new ones for MINUTES."""

    last = b""

    def bounded(data: bytes) -> None:
        nonlocal last
        last = data
        with _no_hang():
            check(data)

    for path in sorted((CORPUS / corpus).glob("*")):
        bounded(path.read_bytes())
    run = settings(
        max_examples=500 if MINUTES else count,
        derandomize=not MINUTES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(given(examples)(bounded))
    until = time.monotonic() + 60 * MINUTES
    try:
        run()
        while time.monotonic() < until:
            run()
    except (Exception, Hang):
        if MINUTES:  # the last one is the smallest failing example
            _keep(CORPUS / corpus, last)
        raise


def _keep(folder: Path, find: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / sha256(find).hexdigest()[:12]).write_bytes(find)


@contextmanager
def _no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"more than {LONGEST} s for one example")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of these files with bytes changed, removed or inserted, mostly near its start, in the headers."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 4))):
        end = draw(st.sampled_from((16, 64, 256, len(data))))
        place = draw(st.integers(0, max(0, min(end, len(data)) - 1)))
        change = draw(st.sampled_from(("bit", "byte", "cut", "insert", "end")))
        if change == "bit" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif change == "byte" and data:
            data[place] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, *b"\n {}[]\"'09-")))
        elif change == "cut":
            del data[place : place + draw(st.integers(1, 16))]
        elif change == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[place:]
    return bytes(data)
