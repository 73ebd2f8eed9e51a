"""Chunks of shards and the task runners: what is divided, what is waited for, and that bytes do not depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.task_runners import ProcessPoolTaskRunner

from dmp_core.config import load_config
from dmp_core.config.stages import RuntimeConfig
from dmp_core.errors import InputError, MissingExtra
from dmp_core.stages import chunks, execute, find, plan, waves
from dmp_core.stages.parts import dataset_config
from dmp_core.store import Chunk, Workspace
from flows import crew
from flows.pipeline import run_pipeline

TINY = ["tasks=[normal]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1"]


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


def test_chunks_are_what_is_missing(tmp_path):
    config = request(tmp_path)
    place, node = Workspace(tmp_path), find(plan(config), "images/train")
    with pytest.raises(InputError, match="not complete"):
        chunks(node, place, 2)
    execute(config, "prompts/train", str(tmp_path))
    assert chunks(node, place, 2) == [(0, 1), (2,)]
    assert not execute(config, node.id, str(tmp_path), shards=Chunk([1])).cached
    assert chunks(node, place, 1) == [(0,), (2,)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-000001.tar")}
    execute(config, node.id, str(tmp_path), shards=Chunk([0, 1, 2]))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-000001.tar")} == before
    assert chunks(node, place, 1) == []


@pytest.mark.e2e
def test_a_divided_run_makes_the_same_shards_and_resumes(tmp_path):
    plain, divided = tmp_path / "plain", tmp_path / "divided"
    for node in plan(config := request(plain)):
        execute(config, node.id, str(plain))
    config = request(divided, "runtime={task_runner: process, parallel: 2, chunk_shards: 1}")
    assert not any(output.cached for output in run_pipeline(config, str(divided)))
    assert shards(divided) == shards(plain)
    next(divided.glob("images/*/shard-000001.tar")).unlink()
    outputs = run_pipeline(config, str(divided))
    assert [output.id for output in outputs if not output.cached] == ["images/train"]
    assert shards(divided) == shards(plain)
    assert all(not output.cached for output in run_pipeline(config, str(divided), force=True))
    assert shards(divided) == shards(plain)


def test_configuration_chooses_the_runner(monkeypatch):
    assert isinstance(crew.task_runner(RuntimeConfig(task_runner="process")), ProcessPoolTaskRunner)
    monkeypatch.setattr(crew.importlib, "import_module", lambda name: __import__("no_such_module"))
    for runner in ("dask", "ray"):
        with pytest.raises(MissingExtra, match=rf"dmp-pipeline\[{runner}\]"):
            crew.task_runner(RuntimeConfig(task_runner=runner))
    with pytest.raises(InputError, match=r"runtime: cluster: needs task_runner dask or ray"):
        load_config("smoke", None, ["runtime.cluster=tcp://host:8786"])
    with pytest.raises(InputError, match=r"runtime: parallel: needs task_runner process, dask or ray"):
        load_config("smoke", None, ["runtime.parallel=2"])


def test_a_run_without_a_crew_starts_no_runner():
    with crew.crew_for(RuntimeConfig()) as none:
        assert none is None
    settings = RuntimeConfig(task_runner="process", parallel=2)
    with crew.crew_for(settings) as outer, crew.crew_for(settings) as inner:
        assert inner is outer
        assert outer.runner is None
