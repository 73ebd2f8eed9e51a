"""A plan on a pool of GPUs, simulated: how long, how busy, how dear, with and without chunks, and on a spot market.

    python -m benchmarks.cluster --workers 8

Seconds of the work are `dmp plan`'s default rates (one GPU of the A100 class); the overheads are measured, see below.
Stages are made one after another, as the flow does; those of `HERE` run in the flow's own process meanwhile, on a CPU.
A machine that is lost comes back, and its run is sent again from its last finished shard or checkpoint.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dmp_core.config import load_config
from dmp_core.stages import Node, batches, plan, waves
from dmp_core.stages.estimate import estimate_seconds
from dmp_core.store import Workspace

HERE = ("quality", "shards", "evaluate", "report")
CAPTIONS = 500
"""Of one call to the language model; answers are kept."""
MOST_CHUNKS = 100
"""As in `flows.call`, which would import Prefect."""


START = 25.0
"""5 s until a worker looks (every 10 s), 10 s of a core for Prefect's process and imports (measured in the drills of
tests/e2e), and 10 s in which the model is loaded."""
NOTICED, REPLACED = 300.0, 300.0
"""The limit of `make deploy --lost-after`; a spot market's usual delay."""
PRICE, SPOT_PRICE = 2.0, 0.8
"""Per hour of one GPU; put in your own."""
PLANS = {"paper": [], "a million images": ["splits.train.count=1000000"]}
SCHEDULES = {"an artefact per run, 1000 samples per shard": (1000, None), "chunks of shards of 200": (200, 5)}


@dataclass(frozen=True)
class Fleet:
    """Machines with one GPU each, and what a run costs besides its work. All in seconds."""

    workers: int = 8
    start: float = 0.0
    """From a run's request to its first sample: Prefect's queue and process, imports, the model."""
    mean_life: float | None = None
    """Lives are exponential; None: no machine is lost."""
    noticed: float = 0.0
    """From a loss until the run is sent again: heartbeats are missed."""
    replaced: float = 0.0
    """From a loss until another machine takes its place."""


@dataclass
class Job:
    """An artefact: its runs, each a list of parts (seconds) that a lost run does not make again."""

    runs: list[list[float]]
    divided: bool = False
    """Whether another run publishes it after them."""


@dataclass
class Outcome:
    seconds: float = 0.0
    useful: float = 0.0
    """Seconds of work that stayed, of all GPUs."""
    wasted: float = 0.0
    """Seconds of work that was lost with its machine."""
    losses: int = 0

    def busy(self, fleet: Fleet) -> float:
        """Share of the GPUs' time that was useful."""
        return self.useful / (fleet.workers * self.seconds)

    def gpu_hours(self, fleet: Fleet) -> float:
        """What is paid for: all machines from the first to the last run, except while one is being replaced."""
        return (fleet.workers * self.seconds - self.losses * fleet.replaced) / 3600


@dataclass
class Pool:
    """The machines, from one wave of jobs to the next."""

    fleet: Fleet
    draw: random.Random
    out: Outcome = field(default_factory=Outcome)

    def wave(self, jobs: Sequence[Job]) -> None:
        """Make jobs that do not depend on each other, first come first served; the outcome's clock advances."""
        fleet, now, order = self.fleet, self.out.seconds, itertools.count()
        waiting = deque((number, parts) for number, job in enumerate(jobs) for parts in job.runs)
        left, idle = Counter({number: len(job.runs) for number, job in enumerate(jobs)}), fleet.workers
        published = {number for number, job in enumerate(jobs) if not job.divided}
        events: list[tuple[float, int, int, tuple[int, list[float]] | None]] = []
        while waiting or events:
            while waiting and idle:
                number, parts = waiting.popleft()
                idle -= 1
                self._run(events, order, now, number, parts)
            now, _, freed, run = heapq.heappop(events)
            idle += freed
            if run is None:
                continue
            number, parts = run
            if parts:
                waiting.append(run)
                continue
            left[number] -= 1
            if not left[number]:
                self.out.seconds = max(self.out.seconds, now)
                if number not in published:
                    published.add(number)
                    left[number] = 1
                    waiting.append((number, []))

    def _run(self, events: list[tuple], order: itertools.count, now: float, number: int, parts: list[float]) -> None:
        """One run on a machine; a life that is exponential does not depend on its machine's age."""
        fleet = self.fleet
        life = self.draw.expovariate(1 / fleet.mean_life) if fleet.mean_life else float("inf")
        ends = list(itertools.accumulate(parts, initial=fleet.start))
        if ends[-1] <= life:
            self.out.useful += sum(parts)
            heapq.heappush(events, (now + ends[-1], next(order), 1, (number, [])))
            return
        done = sum(end <= life for end in ends[1:])
        self.out.useful += sum(parts[:done])
        self.out.wasted += max(0.0, life - ends[done])
        self.out.losses += 1
        heapq.heappush(events, (now + life + fleet.noticed, next(order), 0, (number, parts[done:] or [0.0])))
        heapq.heappush(events, (now + life + fleet.replaced, next(order), 1, None))


def simulate(stages: Sequence[list[Job] | float], fleet: Fleet, seed: int = 0) -> Outcome:
    """Waves of jobs, and seconds in which only the flow's own process works, one after another."""
    pool = Pool(fleet, random.Random(seed))
    for stage in stages:
        if isinstance(stage, list):
            pool.wave(stage)
        else:
            pool.out.seconds += stage
    return pool.out


def stages_of(overrides: list[str], chunk_shards: int | None) -> list[list[Job] | float]:
    """The paper preset's plan."""
    nowhere, found = Workspace("/nonexistent"), []
    for stage, batch in batches(plan(load_config("paper", None, overrides))):
        for wave in waves(batch):
            seconds = [estimate_seconds(node, nowhere).seconds for node in wave]
            if stage in HERE:
                found.append(sum(seconds))
            else:
                found.append([_job(node, each, chunk_shards) for node, each in zip(wave, seconds, strict=True)])
    return found


def _job(node: Node, seconds: float, chunk_shards: int | None) -> Job:
    parts = _parts(node, seconds)
    size = max(chunk_shards or len(parts), ceil(len(parts) / MOST_CHUNKS))
    if not node.kind.chunked or len(parts) <= size:
        return Job([parts])
    return Job([parts[start : start + size] for start in range(0, len(parts), size)], divided=True)


def _parts(node: Node, seconds: float) -> list[float]:
    """Shards, or steps between two checkpoints."""
    if node.kind.chunked:
        upstream, per_shard = node, None
        while (per_shard := getattr(upstream.config, "samples_per_shard", None)) is None:
            upstream = next(upstream.inputs[role] for role in ("column", "labels", "images") if role in upstream.inputs)
        count = ceil(node.samples / per_shard)
    elif node.stage == "prompts":
        count = ceil(node.samples / CAPTIONS)
    else:
        training = getattr(node.config, "train", None) or getattr(node.config, "fit", None)
        count = ceil(training.steps / training.checkpoint_every) if hasattr(training, "checkpoint_every") else 1
    return [seconds / count] * count


def fleets(workers: int, life: float) -> dict[str, Fleet]:
    """life: on the spot market, hours."""
    spot = Fleet(workers, START, life * 3600, NOTICED, REPLACED)
    return {"on demand": Fleet(workers, START), f"spot, {life:g} h": spot}


def outcomes(
    overrides: list[str], fleet: Fleet, per_shard: int, chunk_shards: int | None, repeats: int
) -> list[Outcome]:
    stages = stages_of([*overrides, f"shards.samples_per_shard={per_shard}"], chunk_shards)
    return [simulate(stages, fleet, seed) for seed in range(repeats if fleet.mean_life else 1)]


def row(outs: list[Outcome], fleet: Fleet) -> list[str]:
    """Means over the seeds."""
    paid = fmean(out.gpu_hours(fleet) for out in outs)
    return [
        f"{fmean(out.seconds for out in outs) / 3600:.1f}",
        f"{fmean(out.busy(fleet) for out in outs):.0%}",
        f"{paid:.0f}",
        f"{paid * (SPOT_PRICE if fleet.mean_life else PRICE):.0f}",
        f"{fmean(out.losses for out in outs):.0f}",
        f"{fmean(out.wasted / out.useful for out in outs):.1%}",
    ]


def draw(file: Path, life: float, chunk_shards: int, repeats: int) -> None:
    """Hours of the paper preset, and the GPUs' busy share, by their number."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "cluster"
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    numbers = [1, 2, 4, 8, 16, 32, 64]
    for (schedule, (per_shard, divided)), colour in zip(SCHEDULES.items(), ("tab:orange", "tab:blue"), strict=True):
        for machines, style in zip(fleets(1, life), ("-", "--"), strict=True):
            points = []
            for fleet in (fleets(number, life)[machines] for number in numbers):
                outs = outcomes([], fleet, per_shard, chunk_shards if divided else None, repeats)
                points.append((fmean(o.seconds for o in outs) / 3600, 100 * fmean(o.busy(fleet) for o in outs)))
            for axis, values in zip(axes, zip(*points, strict=True), strict=True):
                axis.plot(numbers, values, style, color=colour, label=f"{schedule.partition(',')[0]}, {machines}")
    for axis, label in zip(axes, ("hours", "busy share of the GPUs, %"), strict=True):
        axis.set(xscale="log", xlabel="GPUs", ylabel=label, ylim=(0, None), xticks=numbers, xticklabels=numbers)
        axis.minorticks_off()
    axes[0].legend(fontsize=7)
    figure.savefig(file, metadata={"Date": None})


def main(
    workers: Annotated[int, typer.Option(help="GPUs.")] = 8,
    life: Annotated[float, typer.Option(help="Mean life of a machine on the spot market, hours.")] = 2.0,
    chunk_shards: Annotated[int, typer.Option(help="Shards of 200 samples per run.")] = 5,
    repeats: Annotated[int, typer.Option(help="Seeds of the spot market.")] = 20,
    plot: Annotated[Path | None, typer.Option(help="Draw hours and busy share by the number of GPUs here.")] = None,
) -> None:
    columns = ("plan", "machines", "scheduling", "hours", "busy", "GPU hours", "cost", "losses", "work lost")
    table = Table(*columns, title=f"{workers} GPUs", title_justify="left")
    for (name, overrides), (machines, fleet) in itertools.product(PLANS.items(), fleets(workers, life).items()):
        for schedule, (per_shard, divided) in SCHEDULES.items():
            outs = outcomes(overrides, fleet, per_shard, chunk_shards if divided else None, repeats)
            table.add_row(name, machines, schedule, *row(outs, fleet))
    Console(width=160).print(table)
    if plot is not None:
        draw(plot, life, chunk_shards, repeats)


if __name__ == "__main__":
    typer.run(main)
