"""Each write of each stage fails once, or from then on: an error that names a path, and the next run ends the same.

What is one write is said in `tests/faults/faults.c`.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from itertools import count

from tests.chaos.arena import Arena, Tally, complain
from tests.chaos.drills import contents
from tests.chaos.signals import _after

FAULTS = {
    "ENOSPC": (errno.ENOSPC, True),
    "EIO": (errno.EIO, False),
    "EROFS": (errno.EROFS, True),
    "EACCES": (errno.EACCES, True),
}


def failing_writes(
    arena: Arena, sample: int | None = None, seed: int = 0, stages: list[str] | None = None
) -> Iterator[Tally]:
    """A tally per fault. sample: this number of writes of each stage, instead of all."""
    rng = random.Random(seed)
    for name, fault in FAULTS.items():
        tally = Tally(f"{name} {'for good' if fault[1] else 'once'}, at {'each' if not sample else 'some'} writes")
        for stage in stages or arena.stages:
            _stage(arena, tally, stage, fault, rng, sample)
        yield tally


def _stage(
    arena: Arena, tally: Tally, stage: str, fault: tuple[int, bool], rng: random.Random, sample: int | None
) -> None:
    right = contents(_after(arena, stage))
    numbers = count(1) if sample is None else sorted(rng.sample(range(1, 20), sample))
    for number in numbers:
        what = f"{stage}, write {number}"
        arena.fresh(stage)
        arena.warm.start(*arena.words("stage", stage), fault=(number, *fault), inline=True)
        ended = arena.warm.end(arena.workspace, arena.patience)
        if ended is not None and arena.warm.writes() < number:
            return
        tally.tried += 1
        if ended is not None and ended.code == 0:  # a write that the stage does not need, or retries
            if wrong := arena.differences(right):
                tally.lost.append(f"{what}: {wrong[:5]}")
            continue
        complain(tally, what, ended, (1,), "error: ")
        if ended is not None and ended.temporary and not fault[1]:
            tally.lost.append(f"{what}: left {ended.temporary}")
        arena.finish(tally, what, "stage", stage, right=right, inline=True)
