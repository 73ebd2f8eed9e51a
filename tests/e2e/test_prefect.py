"""Prefect as users run it: a server, two workers, `make deploy`, runs by deployment, and machines that die.

The first tests belong to `make test`; those marked e2e take minutes and belong to `make e2e`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from dmp_core.config import load_config
from dmp_core.experiments.settings import experiment_names
from dmp_core.stages import STAGES, execute, plan, statuses
from dmp_core.store import Workspace
from flows.deploy import lost_runs, save
from tests.chaos.drills import LIMIT, LINE, Run
from tests.e2e.orchestra import LOST_AFTER, PATIENCE, ROOT, Orchestra, orchestra, wait_for

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)

ONE_TASK = ["modalities=[normal]", "runtime.device=cpu", "runtime.workers=1", "train.processes=2"]
ON_GPU = "runtime.deployments={train: train/gpu}"
SMOKE = load_config("smoke", None, ONE_TASK)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    with orchestra(tmp_path_factory.mktemp("prefect")) as started:
        yield started


@pytest.fixture(scope="module")
def workspace(prefect: Orchestra, tmp_path_factory) -> Path:
    """The whole DAG, run by `prefect deployment run`, with its training on the other pool."""
    folder = tmp_path_factory.mktemp("workspace")
    overrides = json.dumps([*ONE_TASK, ON_GPU])
    output = prefect.command(
        "prefect", "deployment", "run", "pipeline/smoke", "-p", f"workspace={folder}", "-p", f"overrides={overrides}"
    )
    prefect.end(UUID(next(word for word in output.split() if word.count("-") == 4)))
    return folder


def complete(workspace: Path, config: Any = SMOKE) -> bool:
    return set(statuses(plan(config), Workspace(workspace)).values()) == {"complete"}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in found.items()}


def artifacts() -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact for artifact in client.read_artifacts()}


def values(workspace: Path, *overrides: str) -> dict[str, Any]:
    config = load_config("smoke", None, [*ONE_TASK, *overrides])
    return {"config": config.model_dump(mode="json"), "workspace": str(workspace)}


# ------------------------------------------------------------------------------------- short
def test_every_stage_and_every_flow_is_in_prefect_yaml():
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entrypoints = {entry["entrypoint"] for entry in listed if entry["name"] == "mini"}
    stages = {f"flows/stages.py:{stage}" for stage in STAGES}
    datasets = {"flows/dataset.py:generate_dataset", "flows/dataset.py:import_dataset"}
    experiments = {f"flows/experiments.py:{name}" for name in experiment_names()}
    assert entrypoints == {*stages, *datasets, *experiments, "flows/pipeline.py:pipeline"}


@pytest.mark.e2e
def test_pipeline_runs_by_deployment_with_its_training_on_the_other_pool(prefect, workspace):
    assert complete(workspace)
    assert (workspace / "report" / "index.html").exists()
    assert "train/normal-dmp: made" in prefect.log("gpu-node")
    output = prefect.log("cpu-node")
    assert "train: sending train/normal-dmp to train/gpu" in output
    assert "train/normal-dmp: made" not in output

    shown = artifacts()
    for split in ("In-domain", "Out-of-domain"):
        assert re.search(
            rf"^\| Surface normals \| [^|]+ \| {split} \| [\d.]+", shown["report-smoke"].data, re.MULTILINE
        )
    rows = json.loads(shown["artefacts-smoke"].data)
    assert {row["id"] for row in rows} == {node.id for node in plan(SMOKE)}
    assert float(shown["progress-smoke-images-train"].data) == 100


# -------------------------------------------------------------------------------------- long
@pytest.mark.e2e
def test_deploying_again_changes_nothing(prefect):
    def state() -> tuple[Any, ...]:
        with get_client(sync_client=True) as client:
            pools = client.read_work_pools()
            queues = [(q.name, q.priority) for pool in pools for q in client.read_work_queues(work_pool_name=pool.name)]
            automations = [
                (a.id, a.name) for n in ("fell silent has", "does not start has")
                for a in client.read_automations_by_name(f"DMP: a run that {n} crashed")
            ]  # fmt: skip
            deployments = {d.id: (d.name, d.parameters, d.tags) for d in client.read_deployments()}
            return [(p.id, p.name, p.concurrency_limit) for p in pools], sorted(queues), automations, deployments

    before = state()
    prefect.command("flows.deploy")
    assert state() == before
    assert len(before[2]) == 2
    assert ("gpu", 1) in [pool[1:] for pool in before[0]]


@pytest.mark.e2e
def test_labels_alone_are_made_again_and_nothing_else(prefect, workspace):
    before = files(workspace)
    run = prefect.end(prefect.submit("labels/mini", **values(workspace), split="train", shards="1", force=False))
    assert run.state.is_completed()
    assert run.name == f"labels train shards 1: smoke (smoke) in {workspace}"
    changed = {name for name, state in files(workspace).items() if before.get(name) != state}
    assert {Path(name).name for name in changed} == {"shard-000001.tar", "shard-000001.json", "manifest.json"}
    assert {name.split("/")[0] for name in changed} == {"labels"}
    assert complete(workspace)


@pytest.mark.e2e
def test_new_keywords_extend_a_dataset(prefect, tmp_path):
    wanted = {**values(tmp_path), "name": "rooms", "count": 3}
    assert prefect.end(prefect.submit("generate-dataset/smoke", **wanted, keywords=["bedroom"])).state.is_completed()
    before = files(tmp_path / "datasets" / "rooms" / "train")
    more = prefect.end(prefect.submit("generate-dataset/smoke", **wanted, keywords=["kitchen", "jewelry shop"]))
    assert more.state.is_completed()
    assert more.name == f"dataset rooms: 3 of kitchen, jewelry shop in {tmp_path}"
    assert files(tmp_path / "datasets" / "rooms" / "train") == before
    assert (tmp_path / "datasets" / "rooms" / "train-kitchen-jewelry-shop" / "manifest.json").exists()
    assert "`train-kitchen-jewelry-shop` | 3" in (tmp_path / "datasets" / "rooms" / "README.md").read_text()


@pytest.mark.e2e
def test_an_experiment_uses_the_pipelines_data_and_shows_its_tables(prefect, workspace):
    before = files(workspace / "images")
    wanted = {**values(workspace), "overrides": ["train.steps=2"], "variants": ["paper", "steps-2"]}
    run = prefect.end(prefect.submit("ablate/mini", **wanted))
    assert run.state.is_completed()
    assert run.name == f"ablate paper, steps-2: smoke (smoke) in {workspace}"
    assert files(workspace / "images") == before
    output = artifacts()["experiment-ablate"].data
    assert re.search(r"^\| DMP \|.* [\d.]+", output, re.MULTILINE)
    assert (workspace / "experiments" / "ablate" / "figure7.png").exists()


@pytest.mark.e2e
def test_bad_input_on_another_pool_is_reported_by_the_parent(prefect, workspace, tmp_path):
    nowhere = prefect.end(prefect.submit("pipeline/smoke", **values(tmp_path, "runtime.deployments={train: train/x}")))
    assert nowhere.state.is_failed()
    assert "runtime.deployments.train: no deployment 'train/x'" in nowhere.state.message
    assert not (tmp_path / "prompts").exists()
    refused = prefect.end(prefect.submit("train/gpu", **values(tmp_path)))
    assert refused.state.is_failed()
    assert "latents/image: not made yet" in refused.state.message


@pytest.mark.e2e
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_to_dmp_run_is_a_crash_to_the_server(prefect, tmp_path, number, group):
    folder = tmp_path / "workspace"
    chosen = [word for override in ONE_TASK for word in ("--set", override)]
    run = Run(folder, "run", "-p", "smoke", *chosen, "-w", str(folder), PREFECT_API_URL=prefect.url)
    run.until(run.at_work("images"))
    ended = run.signal(number, group=group)
    assert (ended.code, ended.err) == (128 + number, f"{LINE}\n")
    assert ended.seconds < LIMIT
    assert ended.alive == ended.temporary == []
    with get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[f"smoke (smoke) in {folder}"]))
        (seen,) = client.read_flow_runs(flow_run_filter=named)
    assert seen.state.is_crashed()


class TestTrainingThatDoesNotComplete:
    """A child run on the other pool fails: its parent must report it soon, and other runs must not be affected."""

    pytestmark = pytest.mark.e2e
    SOON = 15  # seconds
    LOST = 150

    def start(self, prefect: Orchestra, workspace: Path, name: str, *overrides: str) -> tuple[UUID, UUID]:
        """A training of hours; (parent, child) once it trains. `name` makes it another artefact."""
        before = len(prefect.log("gpu-node"))
        parent, child = self.send(prefect, workspace, name, *overrides)
        wait_for("training", lambda: "train/normal-dmp: started" in prefect.log("gpu-node")[before:])
        return parent, child.id

    def send(self, prefect: Orchestra, workspace: Path, name: str, *overrides: str) -> tuple[UUID, FlowRun]:
        long = ["train.steps=1000000", f"train.seed={len(name)}", "runtime.resend=0", ON_GPU, *overrides]
        parent = prefect.submit("pipeline/smoke", **values(workspace, *long))
        return parent, prefect.child(parent, "train")

    def took(self, ended: FlowRun, since: datetime) -> float:
        """Seconds until a run was over."""
        seconds = (ended.end_time - since).total_seconds()
        log.info("%s: %s after %.1f s", ended.name, ended.state.name, seconds)
        return seconds

    def test_too_long(self, prefect, workspace):
        parent, child = self.send(prefect, workspace, "slow", "runtime.timeouts={train: 20}")
        ended = prefect.end(parent)
        assert ended.state.is_failed()
        assert "stopped after 20 s" in ended.state.message
        assert self.took(ended, child.start_time) < 20 + self.SOON
        stopped = prefect.end(child.id)
        assert stopped.state.is_cancelled()
        assert self.took(stopped, ended.end_time) < self.SOON

    def test_cancelled(self, prefect, workspace):
        parent, child = self.start(prefect, workspace, "cancel")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(child, Cancelling())
        cancelled = prefect.end(child)
        assert cancelled.state.is_cancelled()
        ended = prefect.end(parent)
        assert ended.state.is_cancelled()
        assert self.took(ended, cancelled.end_time) < self.SOON

    def test_parent_cancelled(self, prefect, workspace):
        parent, child = self.start(prefect, workspace, "parent cancel")
        asked = datetime.now(UTC)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(parent, Cancelling())
        ended = prefect.end(parent)
        assert ended.state.is_cancelled()
        assert self.took(ended, asked) < 2 * self.SOON  # the parent's own worker is notified within ten seconds
        stopped = prefect.end(child)
        assert stopped.state.is_cancelled()
        assert self.took(stopped, ended.end_time) < self.SOON

    @pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
    def test_killed(self, by, prefect, workspace):
        parent, child = self.start(prefect, workspace, "kill" if by == signal.SIGKILL else "terminate")
        killed = datetime.now(UTC)
        prefect.kill("gpu-node", flows_only=True, by=by)
        crashed = prefect.end(child)
        assert crashed.state.is_crashed()
        assert self.took(crashed, killed) < self.SOON
        ended = prefect.end(parent)
        assert ended.state.is_failed()
        assert "train/normal-dmp (train/gpu): ended as Crashed" in ended.state.message
        assert self.took(ended, crashed.end_time) < self.SOON

    def test_machine_lost(self, prefect, workspace):
        parent, child = self.start(prefect, workspace, "machine lost")
        killed = datetime.now(UTC)
        prefect.kill("gpu-node")
        ended = prefect.end(parent)
        prefect.worker("gpu", "gpu-node")  # for the tests below
        assert ended.state.is_failed()
        assert "train/normal-dmp (train/gpu): ended as Crashed: No heartbeat for 90 s" in ended.state.message
        assert self.took(ended, killed) < self.LOST
        assert prefect.end(child).state.is_crashed()


@pytest.mark.e2e
def test_killed_children_are_sent_again_until_the_parent_completes(prefect, tmp_path):
    """As on pre-emptible machines: the process of a training is killed twice."""
    steps = ["train.steps=400", "train.checkpoint_every=20", ON_GPU]
    parent = prefect.submit("pipeline/smoke", **values(tmp_path, *steps))
    for _ in range(2):
        before = len(prefect.log("gpu-node"))
        wait_for("training", lambda before=before: "train/normal-dmp: started" in prefect.log("gpu-node")[before:])
        prefect.kill("gpu-node", flows_only=True)
    assert prefect.end(parent).state.is_completed()
    assert complete(tmp_path, load_config("smoke", None, [*ONE_TASK, *steps]))


@pytest.fixture
def two_machines(prefect: Orchestra) -> Iterator[list[str]]:
    """A second worker of the gpu pool."""
    with get_client(sync_client=True) as client:
        client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=2))
    prefect.worker("gpu", "gpu-node-2")
    yield ["gpu-node", "gpu-node-2"]
    prefect.kill("gpu-node-2")
    with get_client(sync_client=True) as client:
        client.update_work_pool("gpu", WorkPoolUpdate(concurrency_limit=1))


DIVIDED = ["images={resolution: 64, samples_per_pixel: 256}", "splits.train.count=12"]
BY_CHUNKS = "runtime={device: cpu, workers: 1, chunk_shards: 2, deployments: {images: images/gpu}}"


def images_of(workspace: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.glob("images/train-*/shard-*")}


@pytest.mark.e2e
def test_two_machines_share_one_artefact_though_two_of_its_three_runs_are_killed(prefect, two_machines, tmp_path):
    """In random moments; the parent completes without a human, and no finished shard is made twice."""
    ids = [node.id for node in plan(SMOKE) if node.stage == "prompts"] + ["images/train"]
    parent = prefect.submit("pipeline/smoke", **values(tmp_path / "divided", *DIVIDED, BY_CHUNKS), only=ids)
    moments, done = random.Random(os.environ.get("DMP_SEED", "1")), {}
    log.info("seed %s", os.environ.get("DMP_SEED", "1"))
    for _ in range(2):
        wait_for("work", lambda: at_work(tmp_path / "divided"))
        time.sleep(moments.uniform(0, 6))
        victim = moments.choice(wait_for("work", lambda: at_work(tmp_path / "divided")))
        done |= finished_shards(tmp_path / "divided")
        os.kill(victim, signal.SIGKILL)
    assert prefect.end(parent).state.is_completed()
    now = finished_shards(tmp_path / "divided")
    assert {name: now[name] for name in done} == done
    with get_client(sync_client=True) as client:
        ours = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
        sent = [run for run in client.read_flow_runs(flow_run_filter=ours) if run.name.startswith("images train")]
    log.info("%s", [(run.name[:30], run.state.name) for run in sent])
    assert sum(run.state.is_crashed() for run in sent) == 2
    assert len(sent) == 3 + 2 + 1
    assert all("'images train shards" in prefect.log(node) for node in two_machines)

    config = load_config("smoke", None, [*ONE_TASK, *DIVIDED])
    for node_id in ids:
        execute(config, node_id, str(tmp_path / "alone"))
    assert images_of(tmp_path / "divided") == images_of(tmp_path / "alone")


def at_work(workspace: Path) -> list[int]:
    """Processes that hold a shard's lock and live."""
    found = []
    for path in workspace.glob(".locks/images-train-*shard-*.lock"):
        with suppress(OSError, ValueError):
            holder = json.loads(path.read_text())["pid"]
            os.kill(holder, 0)
            found.append(holder)
    return sorted(set(found))


def finished_shards(workspace: Path) -> dict[str, tuple[int, int]]:
    found = files(workspace / "images") if (workspace / "images").is_dir() else {}
    shards = {name.removesuffix(".json") for name in found if "/shard-" in name and name.endswith(".json")}
    return {f"{name}.tar": found[f"{name}.tar"] for name in shards if f"{name}.tar" in found}


@pytest.mark.e2e
def test_a_server_that_is_away_for_a_minute_ends_no_run(prefect, tmp_path):
    """While a parent waits for its child, which trains on meanwhile; with the default limit for heartbeats."""
    steps = ["train.steps=300", "train.checkpoint_every=50", ON_GPU]
    before = len(prefect.log("gpu-node"))
    save(lost_runs(300))
    parent = prefect.submit("pipeline/smoke", **values(tmp_path, *steps))
    wait_for("training", lambda: "train/normal-dmp: started" in prefect.log("gpu-node")[before:])
    prefect.kill("server")
    wait_for("the server's end", lambda: not prefect.processes("server"))
    time.sleep(60)
    prefect.start()
    ended = prefect.end(parent)
    save(lost_runs(LOST_AFTER))
    assert ended.state.is_completed()
    assert complete(tmp_path, load_config("smoke", None, [*ONE_TASK, *steps]))


@pytest.mark.e2e
def test_no_living_run_is_marked_as_crashed_under_full_load(prefect, two_machines, tmp_path):
    """DMP_LOADED_RUNS of them (5), four at a time, while other processes use every core; heartbeats then come late."""
    count, more = int(os.environ.get("DMP_LOADED_RUNS", "5")), [f"cpu-node-{number}" for number in range(2, 5)]
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        runs = [
            prefect.submit("pipeline/smoke", **values(tmp_path / str(number), "train.steps=2", ON_GPU))
            for number in range(count)
        ]
        for node in more:
            prefect.worker("cpu", node)
        ends = [prefect.end(run, patience=PATIENCE * count) for run in runs]
    finally:
        for burner in burners:
            burner.kill()
        for node in more:
            prefect.kill(node)
    assert [run.state.name for run in ends] == ["Completed"] * count
    with get_client(sync_client=True) as client:
        ours = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=runs))
        states = Counter(run.state.name for run in client.read_flow_runs(flow_run_filter=ours, limit=200))
    assert set(states) == {"Completed"}, states


@pytest.mark.e2e
def test_a_stage_in_the_flows_own_process_is_stopped_too(prefect, tmp_path):
    slow = values(tmp_path, "images={resolution: 256, samples_per_pixel: 256}", "runtime.timeouts={images: 3}")
    ended = prefect.end(prefect.submit("pipeline/smoke", **slow))
    assert ended.state.is_failed()
    assert "images: stopped after 3 s" in ended.state.message
    assert not list((tmp_path / "images").glob("train-*/manifest.json"))


@pytest.mark.e2e
def test_a_lost_machine_frees_its_queue_and_the_rerun_resumes_at_the_missing_shard(prefect, tmp_path):
    wanted = values(tmp_path, "images={resolution: 128, samples_per_pixel: 256}", "splits.train.count=8")
    assert prefect.end(prefect.submit("prompts/gpu", **wanted)).state.is_completed()
    lost = prefect.submit("images/gpu", **wanted, split="train")
    first = wait_for("the first shard", lambda: next(tmp_path.glob("images/train-*/shard-000000.json"), None))
    prefect.kill("gpu-node")
    killed = datetime.now(UTC)
    done = files(first.parent)
    rerun = prefect.submit("images/gpu", **wanted, split="train")
    prefect.worker("gpu", "gpu-node")
    crashed = prefect.end(lost)
    assert crashed.state.is_crashed()
    assert (crashed.end_time - killed).total_seconds() < TestTrainingThatDoesNotComplete.LOST
    assert prefect.end(rerun).state.is_completed()
    now = files(first.parent)
    kept = {name for name in done if name.startswith("shard-")}
    assert kept
    assert {name: now[name] for name in kept} == {name: done[name] for name in kept}
    assert "shard-000003.tar" in now
