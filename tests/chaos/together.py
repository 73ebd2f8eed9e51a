"""Two and three simultaneous runs on one workspace, of which some are killed: they share the work and end alike."""

from __future__ import annotations

import random
import signal
import time

from tests.chaos.arena import Arena, Tally, complain
from tests.chaos.warm import Warm


def together(arena: Arena, runs: int, rounds: int, seed: int = 0) -> Tally:
    """Simultaneous runs; in every second round one of them is killed meanwhile."""
    rng, tally = random.Random(seed), Tally(f"{runs} simultaneous runs")
    patience = runs * arena.patience
    others = [Warm(arena.workspace, None) for _ in range(runs - 1)]
    everyone = [arena.warm, *others]
    try:
        for number in range(rounds):
            what = f"seed {seed}, round {number}"
            arena.fresh()
            for warm in everyone:
                warm.start(*arena.words("run"))
                time.sleep(rng.uniform(0, 0.5))
            killed = everyone[-1] if number % 2 else None
            if killed:
                time.sleep(rng.uniform(0, arena.full))
                if not killed.over():
                    killed.signal(signal.SIGKILL)
            for warm in everyone:
                codes = (0, -signal.SIGKILL) if warm is killed else (0,)
                complain(tally, what, warm.end(arena.workspace, patience), codes)
            tally.tried += 1
            if killed:  # its lock, if the others had already finished
                arena.finish(tally, what, "run")
            elif wrong := arena.differences():
                tally.lost.append(f"{what}: {wrong[:5]}")
    finally:
        for warm in others:
            warm.close()
    return tally
