"""`make chaos` in short: some of each drill, every time with the same seed; most of them with `make e2e`."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests import faults
from tests.chaos.arena import Arena, Tally
from tests.chaos.damage import damages
from tests.chaos.disk import FAULTS, failing_writes
from tests.chaos.drills import LIMIT, LINE, Run
from tests.chaos.kills import kills
from tests.chaos.signals import CODES, in_each_stage
from tests.chaos.together import together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    made = Arena(tmp_path_factory.mktemp("arena"))
    yield made
    made.close()


def check(tally: Tally, at_least: int) -> None:
    assert tally.tried >= at_least
    assert (tally.lost, tally.hung, tally.wrong) == ([], [], [])


@pytest.mark.e2e
def test_kills_at_random_times(arena):
    check(kills(arena, 2, at_writes=False), 2)


@pytest.mark.e2e
@pytest.mark.skipif(faults.compiler() is None, reason="needs a C compiler")
def test_kills_at_random_writes(arena):
    check(kills(arena, 3), 3)


@pytest.mark.e2e
def test_signals_in_each_stage(arena):
    check(in_each_stage(arena, 1), len(arena.stages))


@pytest.mark.e2e
@pytest.mark.skipif(faults.compiler() is None, reason="needs a C compiler")
def test_failing_writes(arena):
    for tally in failing_writes(arena, sample=1, stages=["labels", "train"]):
        check(tally, 1)
    assert len(FAULTS) == 4


def test_damaged_files(arena):
    check(damages(arena, sample=1), 1)


@pytest.mark.e2e
def test_two_simultaneous_runs(arena):
    check(together(arena, 2, 1), 1)


# ------------------------------------------------------------------------------ with Prefect
@pytest.mark.e2e
@pytest.mark.parametrize(
    ("runner", "number", "group"), [("thread", signal.SIGINT, True), ("process", signal.SIGTERM, False)]
)
def test_a_signal_ends_a_run_with_prefect_and_the_rerun_resumes(arena, runner, number, group):
    # All inputs of the stage exist, so that it begins immediately.
    arena.fresh("labels" if runner == "thread" else "latents")
    stage = "labels" if runner == "thread" else "latents"
    chosen = ["--set", "runtime={task_runner: process, parallel: 2, chunk_shards: 1, workers: 1}"]
    run = Run(arena.workspace, *arena.words("run"), *(chosen if runner == "process" else []))
    run.until(run.at_work(stage))
    ended = run.signal(number, group=group)
    assert (ended.code, ended.err) == (CODES[number], f"{LINE}\n")
    assert ended.seconds < LIMIT
    assert run.has_ended(LIMIT), run.alive()
    assert ended.temporary == []
    tally = Tally("rerun")
    arena.finish(tally, "the rerun", "run", inline=True)
    check(tally, 0)


@pytest.mark.e2e
def test_the_server_and_the_workers_end_with_a_killed_run(arena):
    arena.fresh("images")
    run = Run(arena.workspace, *arena.words("run"))
    run.until(run.at_work("images"))
    run.until(lambda: len(run.alive()) >= 3)  # the run, its server, a renderer
    run.signal(signal.SIGKILL, group=False)
    assert run.has_ended(LIMIT), run.alive()
    shutil.rmtree(arena.workspace)
