"""More than one worker: every task runner gives the bytes of the plain run, and two runs share one workspace."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmp_core.config import load_config
from dmp_core.stages import plan, statuses
from dmp_core.store import Workspace
from tests.timed import TIMED

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
ONE_EACH = ["--set", "runtime.workers=1", "--set", "runtime.device=cpu"]


def start(workspace: Path, *overrides: str) -> subprocess.Popen[str]:
    settings = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "dmp_core.cli", "run", "-p", "smoke", "-w", str(workspace), *ONE_EACH, *settings]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(run: subprocess.Popen[str]) -> list[str]:
    """Names of the artefacts that it made, not found."""
    told, _ = run.communicate()
    assert run.returncode == 0, told
    lines = [line.split() for line in told.splitlines() if line.strip().startswith("✓")]
    return [words[1] for words in lines if words[2] != "cached"]


def contents(workspace: Path) -> dict[str, bytes]:
    """Bytes by path, without files that contain times and machines."""
    return {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and path.name not in TIMED and "tfevents" not in path.name and ".scratch" not in path.parts
    }


def complete(workspace: Path) -> bool:
    return set(statuses(plan(load_config("smoke")), Workspace(workspace)).values()) == {"complete"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("plain")
    finish(start(workspace))
    return workspace


@pytest.mark.parametrize("runner", ["process", "dask", "ray"])
def test_two_workers_make_the_same_bytes(runner, plain, tmp_path):
    if runner in ("dask", "ray") and importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"prefect-{runner} is not installed (extra {runner}; `make e2e` installs it)")
    made = finish(start(tmp_path, f"runtime={{task_runner: {runner}, parallel: 2, chunk_shards: 1}}"))
    assert sorted(made) == sorted(node.id for node in plan(load_config("smoke")))
    assert contents(tmp_path) == contents(plain)
    assert complete(tmp_path)


def test_two_simultaneous_runs_end_well_and_share_the_work(plain, tmp_path):
    made = [finish(run) for run in [start(tmp_path), start(tmp_path)]]
    assert contents(tmp_path) == contents(plain)
    assert complete(tmp_path)
    # Whole artefacts are made by one of the two; of shards each may have made some.
    for name in ("prompts/train", "train/normal-dmp", "evaluate/depth"):
        assert sum(name in names for names in made) == 1
    assert not list((tmp_path / ".locks").iterdir())


def test_locks_of_a_killed_run_are_taken_over(plain, tmp_path):
    killed = start(tmp_path)
    while not list((tmp_path / ".scratch" / "train").glob("normal-*")):
        assert killed.poll() is None
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert list((tmp_path / ".locks").iterdir())
    assert "train/normal-dmp" in finish(start(tmp_path))
    assert contents(tmp_path) == contents(plain)
    assert not list((tmp_path / ".locks").iterdir())
