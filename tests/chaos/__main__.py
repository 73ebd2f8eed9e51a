"""`make chaos`: disturbances of a run, and what is lost by them. Seeded; takes hours on a small machine.

python -m tests.chaos [--kills 100] [--sample N] [--seed 0] [--only kills,signals,disk,damage,together,commands,prefect]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tests.chaos.arena import Arena, Tally
from tests.chaos.damage import damages
from tests.chaos.disk import failing_writes
from tests.chaos.kills import kills
from tests.chaos.signals import in_each_stage, killed_with_prefect, other_commands, with_prefect
from tests.chaos.together import together

STAGES = ["images", "labels", "latents", "train", "predict", "evaluate", "report"]
Drill = Callable[[], Iterable[Tally]]


def drills(arena: Arena, number: int, sample: int | None, seed: int) -> dict[str, Drill]:
    """Each drill by its name, still to be run."""
    return {
        "kills": lambda: (kills(arena, number, seed, at_writes) for at_writes in (False, True)),
        "signals": lambda: [in_each_stage(arena, 1 if sample else 4, seed)],
        "disk": lambda: failing_writes(arena, sample, seed),
        "damage": lambda: [damages(arena, sample, seed)],
        "together": lambda: (together(arena, runs, 1 if sample else 4, seed) for runs in (2, 3)),
        "commands": lambda: [other_commands(arena)],
        "prefect": lambda: _prefect(arena, STAGES[:1] if sample else STAGES, seed),
    }


def _prefect(arena: Arena, stages: list[str], seed: int) -> Iterator[Tally]:
    yield with_prefect(arena, "thread", stages, seed)
    yield with_prefect(arena, "process", [stage for stage in stages if stage != "report"], seed)
    yield killed_with_prefect(arena)


def main(
    number: Annotated[int, typer.Option("--kills", help="Kills, half of them at writes.")] = 100,
    sample: Annotated[int | None, typer.Option(help="Only so many writes per stage, damages, and so on.")] = None,
    seed: int = 0,
    only: Annotated[str, typer.Option(help="Names of drills, with commas.")] = "",
) -> None:
    """Print a table: tried, lost, hung, ended in a wrong way."""
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder))
        chosen = {
            n: d for n, d in drills(arena, (number + 1) // 2, sample, seed).items() if not only or n in only.split(",")
        }
        typer.echo(f"{'':44} {'tried':>6} {'lost':>6} {'hung':>6} {'wrong':>6}")
        tallies = []
        try:
            for drill in chosen.values():
                begun = time.monotonic()
                for tally in drill():
                    tally.seconds, begun = time.monotonic() - begun, time.monotonic()
                    typer.echo(tally.line())
                    for complaint in (*tally.lost, *tally.hung, *tally.wrong):
                        typer.echo(f"  {complaint}")
                    tallies.append(tally)
        finally:
            arena.close()
    raise typer.Exit(any(tally.lost or tally.hung or tally.wrong for tally in tallies))


if __name__ == "__main__":
    typer.run(main)
