"""Chunks of shards and the task runners: division, waiting, and bytes that do not depend on either."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.task_runners import ProcessPoolTaskRunner

from dmp_core.config import load_config
from dmp_core.errors import InputError, MissingExtra
from dmp_core.progress import listening
from dmp_core.requests.parts import dataset_config
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages import chunks, execute, find, plan, waves
from dmp_core.store import Chunk, Workspace
from flows import task_runners
from flows.pipeline import run_pipeline
from flows.stages import STAGE_FLOWS
from tasks import progress
from tests.making import make

ROOT = Path(__file__).resolve().parents[2]
DIVIDED = "runtime={task_runner: process, parallel: 2, chunk_shards: 1}"
TINY = ["modalities=[normal]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1"]


def request(workspace: Path, *overrides: str):
    return dataset_config(
        load_config("smoke", None, [*TINY, *overrides]), str(workspace), ["bedroom"], 5, name="rooms"
    )  # fmt: skip


def shards(workspace: Path) -> dict[str, bytes]:
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in sorted(workspace.rglob("shard-*"))}


def test_waves_hold_every_node_once_and_after_its_inputs():
    nodes, done = plan(load_config("smoke")), set()
    for wave in waves(nodes):
        assert all(source.id in done for node in wave for source in node.inputs.values())
        done |= {node.id for node in wave}
    assert done == {node.id for node in nodes}
    assert len(list(waves(nodes))) < len(nodes) / 3


def test_chunks_are_the_missing_shards(tmp_path):
    config = request(tmp_path)
    place, node = Workspace(tmp_path), find(plan(config), "images/train")
    with pytest.raises(InputError, match="not complete"):
        chunks(node, node.artefact(place), 2)
    execute(config, "prompts/train", str(tmp_path))
    assert chunks(node, node.artefact(place), 2) == [(0, 1), (2,)]
    assert not execute(config, node.id, str(tmp_path), shards=Chunk([1])).cached
    assert chunks(node, node.artefact(place), 1) == [(0,), (2,)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-000001.tar")}
    execute(config, node.id, str(tmp_path), shards=Chunk([0, 1, 2]))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-000001.tar")} == before
    assert chunks(node, node.artefact(place), 1) == []


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, bytes]:
    """Every shard of the request, made one after another, in this process."""
    workspace = tmp_path_factory.mktemp("plain")
    make(workspace, request(workspace))
    return shards(workspace)


class KillsWorkers:
    """A listener that kills the runner's processes as soon as the first chunk of the images is finished."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self.killed = 0

    def started(self, name: str) -> None:
        pass

    def advanced(self, name: str, done: int, total: int, message: str) -> None:
        self.heard.append((name, done, total))
        if name == "images/train" and not self.killed:
            for process in multiprocessing.active_children():
                process.kill()
                self.killed += 1

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        pass


@pytest.mark.slow
@pytest.mark.e2e
def test_a_divided_run_makes_the_same_shards_though_its_workers_are_killed(plain, tmp_path, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(progress, "create_progress_artifact", lambda percent, key, text: shown.append(text))
    listener = KillsWorkers()
    with listening(listener):
        outputs = run_pipeline(request(tmp_path, DIVIDED), str(tmp_path))
    assert not any(output.cached for output in outputs)
    assert shards(tmp_path) == plain
    assert listener.killed
    assert [heard for heard in listener.heard if heard[0] == "images/train"] == [
        ("images/train", number, 3) for number in (1, 2, 3)
    ]
    assert "images/train: 1 of 3 chunks" in shown


@pytest.mark.e2e
def test_a_worker_killed_while_it_sends_a_message_does_not_keep_the_flows_process_from_ending():
    program = """
from flows.task_runners import EndableProcesses
with EndableProcesses(1) as runner:
    runner._subprocess_message_queue._wlock.acquire()  # as the killed worker leaves it
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_with_worker_processes_starts_one_server(tmp_path):
    runtime = "runtime={task_runner: process, parallel: 2, workers: 1}"
    command = ["stage", "prompts", "-p", "smoke", "-w", str(tmp_path), "--set", runtime]
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | {"PREFECT_LOGGING_LEVEL": "INFO"}
    done = subprocess.run(
        [sys.executable, "-m", "dmp_core.cli", *command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "prompts/train: made" in done.stderr
    assert "temporary server" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["runtime={task_runner: process, parallel: 1}", "runtime.workers=1"])
def test_a_stage_run_alone_stops_when_its_time_is_up(runtime, tmp_path):
    slow = "images={resolution: 64, samples_per_pixel: 2048}"  # about ten seconds per image
    config = request(tmp_path, slow, runtime, "runtime.timeouts={images: 4}")
    execute(config, "prompts/train", str(tmp_path))
    with pytest.raises(TimeoutError, match=r"^images: stopped after 4 s \(runtime\.timeouts\)$"):
        STAGE_FLOWS["images"](config=config, workspace=str(tmp_path))
    assert not list(tmp_path.glob("images/*/manifest.json"))


@pytest.mark.e2e
def test_a_divided_run_resumes_and_can_be_forced(plain, tmp_path):
    config = request(tmp_path, DIVIDED)
    assert not any(output.cached for output in run_pipeline(config, str(tmp_path)))
    assert shards(tmp_path) == plain
    next(tmp_path.glob("images/*/shard-000001.tar")).unlink()
    outputs = run_pipeline(config, str(tmp_path))
    assert [output.id for output in outputs if not output.cached] == ["images/train"]
    assert shards(tmp_path) == plain
    assert all(not output.cached for output in run_pipeline(config, str(tmp_path), force=True))
    assert shards(tmp_path) == plain


def test_configuration_chooses_the_runner(monkeypatch):
    assert isinstance(task_runners.task_runner(RuntimeConfig(task_runner="process")), ProcessPoolTaskRunner)
    monkeypatch.setattr(task_runners.importlib, "import_module", lambda name: __import__("no_such_module"))
    for runner in ("dask", "ray"):
        with pytest.raises(MissingExtra, match=rf"dmp-pipeline\[{runner}\]"):
            task_runners.task_runner(RuntimeConfig(task_runner=runner))
    with pytest.raises(InputError, match=r"runtime: cluster: needs task_runner dask or ray"):
        load_config("smoke", None, ["runtime.cluster=tcp://host:8786"])
    with pytest.raises(InputError, match=r"runtime: parallel: needs task_runner process, dask or ray"):
        load_config("smoke", None, ["runtime.parallel=2"])


def test_a_run_in_turn_starts_no_runner():
    with task_runners.runner_for(RuntimeConfig()) as none:
        assert none is None
    settings = RuntimeConfig(task_runner="process", parallel=2)
    with task_runners.runner_for(settings) as outer, task_runners.runner_for(settings) as inner:
        assert inner is outer
        assert outer.runner is None
