"""`kill -9` of the whole group, at a random time or at a random write; the next run resumes."""

from __future__ import annotations

import random
import signal
import time

from tests.chaos.arena import Arena, Tally, complain
from tests.chaos.warm import KILL

WRITES = 400
"""About as many as the small DAG has; kills at a later one do not happen."""


def kills(arena: Arena, number: int, seed: int = 0, at_writes: bool = True) -> Tally:
    """This number of kills, over as many runs of the DAG as needed."""
    rng = random.Random(seed)
    tally = Tally(f"kill -9, {'at the n-th write' if at_writes else 'at a random time'}")
    arena.fresh()
    while tally.tried < number:
        if at_writes:
            at = rng.randrange(1, WRITES)
            what = f"seed {seed}, kill {tally.tried} at write {at}"
            arena.warm.start(*arena.words("run"), fault=(at, KILL, False))
        else:
            seconds = rng.uniform(0, arena.full)
            what = f"seed {seed}, kill {tally.tried} after {seconds:.2f} s"
            arena.warm.start(*arena.words("run"))
            until = time.monotonic() + seconds
            while time.monotonic() < until and not arena.warm.over():
                time.sleep(0.01)
            if not arena.warm.over():
                arena.warm.signal(signal.SIGKILL)
        ended = arena.warm.end(arena.workspace, arena.patience)
        complain(tally, what, ended, (-signal.SIGKILL, 0))
        if ended is not None and ended.code == 0:  # it finished before the kill, so this run of the DAG is over
            if wrong := arena.differences():
                tally.lost.append(f"{what}: {wrong[:5]}")
            arena.fresh()
        else:
            tally.tried += 1
    arena.finish(tally, "after the last kill", "run")
    return tally
