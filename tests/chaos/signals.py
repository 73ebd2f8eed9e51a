"""SIGINT and SIGTERM, to the process and to its group, in each stage; the next run resumes."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from PIL import Image

from tests.chaos.arena import Arena, Tally, complain
from tests.chaos.drills import LIMIT, LINE, Run, contents

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def in_each_stage(arena: Arena, rounds: int, seed: int = 0) -> Tally:
    """Without Prefect: a signal at a random moment of each stage."""
    rng, tally = random.Random(seed), Tally("SIGINT, SIGTERM in each stage")
    for number in range(rounds):
        arena.fresh()
        for stage in arena.stages:
            chosen, group = rng.choice(list(CODES)), rng.random() < 0.5
            what = f"seed {seed}, round {number}: {chosen.name} in {stage}, {'group' if group else 'process'}"
            arena.warm.start(*arena.words("stage", stage))
            _wait(arena, stage)
            time.sleep(rng.uniform(0, 0.3))
            arena.warm.signal(chosen, group=group)
            ended = arena.warm.end(arena.workspace, arena.patience)
            tally.tried += 1
            complain(tally, what, ended, (CODES[chosen], 0))
            if ended is not None and ended.code:
                complain(tally, what, ended, (CODES[chosen],), LINE)
                if ended.seconds > LIMIT:
                    tally.hung.append(f"{what}: {ended.seconds:.1f} s")
                if ended.temporary:
                    tally.lost.append(f"{what}: left {ended.temporary}")
            arena.finish(tally, what, "stage", stage, right=contents(_after(arena, stage)), inline=True)
    return tally


def _wait(arena: Arena, stage: str) -> None:
    """Until the stage makes something, and so holds a lock, or is over."""
    while not arena.warm.over() and not any(arena.workspace.glob(f".locks/{stage}-*.lock")):
        time.sleep(0.005)


def _after(arena: Arena, stage: str) -> Path:
    following = [*arena.stages, "end"]
    return arena.before(following[following.index(stage) + 1])


def with_prefect(arena: Arena, runner: str, stages: list[str], seed: int = 0) -> Tally:
    """With the temporary server, by the command as users start it: each run continues with the next stage."""
    rng, tally = random.Random(seed), Tally(f"SIGINT, SIGTERM with Prefect, {runner} runner")
    chosen_runner = {"process": ["--set", "runtime={task_runner: process, parallel: 2, chunk_shards: 1, workers: 1}"]}
    words = [*arena.words("run"), *chosen_runner.get(runner, [])]
    arena.fresh()
    arena.workspace.mkdir()
    for stage in stages:
        chosen, group = rng.choice(list(CODES)), rng.random() < 0.5
        what = f"seed {seed}: {chosen.name} in {stage}, {'group' if group else 'process'}"
        run = Run(arena.workspace, *words)
        run.until(run.at_work(stage))
        time.sleep(rng.uniform(0, 0.5))
        ended = run.signal(chosen, group=group)
        tally.tried += 1
        complain(tally, what, ended, (CODES[chosen],), LINE)
        if ended.seconds > LIMIT or not run.has_ended(LIMIT):
            tally.hung.append(f"{what}: {ended.seconds:.1f} s, {run.alive()}")
        if ended.temporary:
            tally.lost.append(f"{what}: left {ended.temporary}")
    arena.finish(tally, f"{runner} runner", "run")
    return tally


def other_commands(arena: Arena) -> Tally:
    """Ctrl-C in other slow commands; each is run by a terminal, so that its group gets the signal."""
    tally, folder = Tally("Ctrl-C in other commands"), arena.folder / "others"
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number in range(200):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(photos / f"{number}.png")
    recipe = ["--set", "scenes.scenes=64", "--set", "scenes.scenes_per_shard=4", "--set", "workers=2"]
    adapter = ["--modality", "normal", "--adapter", "shipped:normal"]
    commands = {
        "dataset new": ["dataset", "new", "-k", "kitchen", "-n", "64", "-p", "smoke", "-w", "WORKSPACE"],
        "dataset import": ["dataset", "import", str(photos), "-p", "smoke", "-w", "WORKSPACE", "--only-dataset"],
        "compare": ["compare", "-p", "smoke", "-w", "WORKSPACE"],
        "predict": ["predict", *map(str, sorted(photos.iterdir())), *adapter, "--out", "WORKSPACE"],
        "prior train": ["prior", "train", "--out", f"{folder}/prior", "--work", "WORKSPACE", *recipe],
    }
    for name, words in commands.items():
        workspace = folder / name.replace(" ", "-")
        run = Run(workspace, *(str(workspace) if word == "WORKSPACE" else word for word in words))
        reached = run.at_work("images") if "WORKSPACE" in words and "-w" in words else workspace.exists
        run.until(reached)
        time.sleep(1)
        ended = run.signal(signal.SIGINT, group=True)
        tally.tried += 1
        complain(tally, name, ended, (130,), LINE)
        if ended.seconds > LIMIT or not run.has_ended(LIMIT):
            tally.hung.append(f"{name}: {ended.seconds:.1f} s, {run.alive()}")
        if ended.temporary:
            tally.lost.append(f"{name}: left {ended.temporary}")
    return tally


def killed_with_prefect(arena: Arena) -> Tally:
    """`kill -9` of the process alone: its server and its workers end by themselves."""
    tally = Tally("kill -9 with Prefect, of the process alone", tried=1)
    arena.fresh()
    arena.workspace.mkdir()
    run = Run(arena.workspace, *arena.words("run"))
    run.until(run.at_work("images"))
    run.signal(signal.SIGKILL, group=False)
    if not run.has_ended(LIMIT):
        tally.hung.append(f"left {run.alive()}")
    arena.finish(tally, "after kill -9", "run")
    return tally
