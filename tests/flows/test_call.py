"""Stages on another pool: results, retries, and errors before work. No server needed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import CancelledRun, ObjectNotFound
from prefect.logging import disable_run_logger
from prefect.states import Cancelled, Completed, Crashed, Failed, Running
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate as validate_parameters

from dmp_core.config import PipelineConfig, load_config, preset_names
from dmp_core.config.presets import validate
from dmp_core.errors import InputError, MissingExtra
from dmp_core.stages import STAGES, StageOutput, artefact_lock, execute, find, plan, shard_numbers
from dmp_core.store import Chunk, Workspace
from flows import call
from flows.call import StageFailed, _is_done, call_stage
from flows.deploy import presets
from flows.pipeline import pipeline, run_dag
from flows.settings import with_overrides
from flows.stages import STAGE_FLOWS
from tasks import STAGE_TASKS, progress, worth_retrying

ROOT = Path(__file__).resolve().parents[2]


def done(state: State, started_before: float = 0, seconds: float | None = None) -> bool:
    start = datetime.now(UTC) - timedelta(seconds=started_before)
    return _is_done(FlowRun(flow_id=uuid4(), state=state, start_time=start), "train/normal-dmp", seconds)


def test_every_stage_has_a_flow_and_a_task():
    assert list(STAGE_FLOWS) == list(STAGE_TASKS) == list(STAGES)


def test_a_child_run_is_done_waited_for_or_an_error():
    assert done(Completed())
    assert not done(Running())
    assert not done(Running(), started_before=50, seconds=60)
    with pytest.raises(TimeoutError, match="train/normal-dmp: stopped after 60 s"):
        done(Running(), started_before=61, seconds=60)
    with pytest.raises(CancelledRun):
        done(Cancelled())
    with pytest.raises(StageFailed, match="ended as Crashed: machine lost"):
        done(Crashed(message="machine lost"))
    with pytest.raises(InputError, match=r"^latents/image: not made yet$"):
        done(Failed(message="Flow run encountered an exception: InputError: latents/image: not made yet"))


@pytest.mark.slow
def test_bad_input_of_any_kind_is_known_by_its_name(monkeypatch):
    """In the state of a run elsewhere there is only text."""

    def fail(*_: object) -> None:
        raise MissingExtra("timm", "labelers")

    monkeypatch.setattr("flows.stages.run_nodes", fail)
    state = STAGE_FLOWS["labels"](config=load_config("smoke"), workspace="unused", return_state=True)
    with pytest.raises(InputError, match=r"^timm is not installed; run: pip install 'dmp-pipeline\[labelers\]'$"):
        done(state)


def test_only_temporary_errors_are_retried():
    passing = (OSError(5, "Input/output error"), ConnectionError(), TimeoutError(), BrokenProcessPool())
    lasting = (InputError("field"), FileNotFoundError(), PermissionError(), ValueError(), MemoryError())
    assert all(map(worth_retrying, passing))
    assert not any(map(worth_retrying, lasting))


def test_overrides_are_applied_and_stages_checked():
    config = load_config("smoke")
    assert with_overrides(config, ["train.steps=7"]).train.steps == 7
    with pytest.raises(InputError, match=r"train\.steps: input should be greater than 0"):
        with_overrides(config, ["train.steps=0"])
    for field, value in (("deployments", "x/y"), ("timeouts", 5)):
        with pytest.raises(InputError, match=rf"runtime\.{field}\.cooking: no such stage"):
            with_overrides(config, [f"runtime.{field}={{cooking: {value}}}"])


def test_an_unknown_artefact_is_refused_before_any_work(tmp_path):
    config = load_config("smoke")
    with pytest.raises(InputError, match=r"^only: no artefact 'images/trian' among those of this run"):
        run_dag(config, str(tmp_path), only=["images/train", "images/trian"])
    with pytest.raises(InputError, match=r"^only: no artefact 'prompts/train'"):
        STAGE_FLOWS["images"].fn(config=config, workspace=str(tmp_path), only=["prompts/train"])
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------- runs of another pool
class Server:
    """The part of Prefect's client that the waiting flow uses; the test decides how its runs end."""

    def __init__(self) -> None:
        self.runs: dict[UUID, FlowRun] = {}
        self.sent: list[dict[str, Any]] = []
        self.cancelled: set[UUID] = set()
        self.state: State = Running()
        self.shown: list[str] = []

    def run_deployment(self, name: str, parameters: dict[str, Any], timeout: float, idempotency_key: str) -> FlowRun:
        run = FlowRun(flow_id=uuid4(), state=self.next_state(), start_time=datetime.now(UTC))
        self.runs[run.id] = run
        self.sent.append(parameters)
        return run

    def next_state(self) -> State:
        return self.state

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        if run_id not in self.runs:
            raise ObjectNotFound(http_exc=Exception("404"))
        return self.runs[run_id]

    def set_flow_run_state(self, run_id: UUID, state: State) -> None:
        self.cancelled.add(run_id)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(call, "get_client", lambda sync_client: nullcontext(made))
    monkeypatch.setattr(call, "run_deployment", made.run_deployment)
    monkeypatch.setattr(progress, "create_progress_artifact", lambda percent, key, text: made.shown.append(text))
    with disable_run_logger():
        yield made


def images_elsewhere(workspace: str, *overrides: str, **given: Any) -> list[StageOutput]:
    config = load_config("smoke", None, ["runtime.deployments={images: images/gpu}", *overrides])
    nodes = [node for node in plan(config) if node.stage == "images"]
    return call_stage("images", nodes, config, workspace, **given)


def test_a_child_gets_the_whole_path_and_a_longer_limit_than_its_parent_keeps(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.state = Completed()
    nothing = (
        rf"^images/\w+ \(images/gpu\): .* {tmp_path}/runs/here/.*manifest.json is not there; .* share the workspace"
    )
    with pytest.raises(StageFailed, match=nothing):
        images_elsewhere("runs/here", "runtime.timeouts={images: 5, train: 7}")
    assert {sent["workspace"] for sent in server.sent} == {f"{tmp_path}/runs/here"}
    assert all(sent["config"]["runtime"]["timeouts"] == {"images": 65} for sent in server.sent)

    images_elsewhere("memory://bucket/here", shards="0")  # which does not always complete an artefact
    assert server.sent[-1]["workspace"] == "memory://bucket/here"
    assert server.sent[-1]["config"]["runtime"]["timeouts"] == {}


def test_a_deleted_child_fails_its_parent_and_the_others_are_cancelled(server, tmp_path, monkeypatch):
    def last_deletes_first(*given: Any, **more: Any) -> FlowRun:
        run = server.run_deployment(*given, **more)
        if len(server.runs) == 4:
            del server.runs[next(iter(server.runs))]
        return run

    monkeypatch.setattr(call, "run_deployment", last_deletes_first)
    with pytest.raises(StageFailed, match=r"^images/\w+ \(images/gpu\): its run [0-9a-f-]{36} was deleted$"):
        images_elsewhere(str(tmp_path))
    assert len(server.runs) == 3
    assert server.cancelled == set(server.runs)


def test_a_crashed_child_is_sent_again_and_its_siblings_continue(server, tmp_path, monkeypatch):
    monkeypatch.setattr(call, "_SECONDS_BETWEEN_LOOKS", 0.01)
    server.state = Crashed(message="machine lost")
    with pytest.raises(StageFailed, match=r"^images/in_domain \(images/gpu\): ended as Crashed: machine lost$"):
        images_elsewhere(str(tmp_path), "runtime.resend=2")
    assert Counter(sent["only"][0] for sent in server.sent)["images/in_domain"] == 3
    states = iter([Crashed(), Crashed()])
    server.sent.clear()
    monkeypatch.setattr(server, "next_state", lambda: next(states, Completed()))
    images_elsewhere("memory://bucket/again", shards="0")
    assert sorted(Counter(sent["only"][0] for sent in server.sent).values()) == [1, 1, 2, 2]


def test_a_child_that_only_the_server_believes_lost_is_waited_for(server, tmp_path, monkeypatch):
    """It holds its artefact's lock."""
    monkeypatch.setattr(call, "_SECONDS_BETWEEN_LOOKS", 0.01)
    config = load_config("smoke", None, ["runtime.deployments={prompts: prompts/cpu}"])
    node = next(node for node in plan(config) if node.stage == "prompts")
    server.state = Crashed(message="no heartbeat")
    read, looks = server.read_flow_run, 0
    with artefact_lock(node, Workspace(str(tmp_path))) as lock:
        lock.wait()

        def counted(run_id: UUID) -> FlowRun:
            nonlocal looks
            looks += 1
            if looks == 5:
                execute(load_config("smoke"), node.id, str(tmp_path / "elsewhere"))
                shutil.copytree(tmp_path / "elsewhere" / "prompts", tmp_path / "prompts")
                lock.release()
            return read(run_id)

        monkeypatch.setattr(server, "read_flow_run", counted)
        call_stage("prompts", [node], config, str(tmp_path))
    assert (looks, len(server.sent)) == (5, 1)


class Worker(Server):
    """Makes what it is sent immediately, as the stage's flow does."""

    def __init__(self) -> None:
        super().__init__()
        self.dies_after: dict[str, int] = {}
        """Shards → how many of them a run finishes before it is killed, once."""

    def run_deployment(self, name: str, parameters: dict[str, Any], timeout: float, idempotency_key: str) -> FlowRun:
        config, (node_id,) = PipelineConfig.model_validate(parameters["config"]), parameters["only"]
        numbers = Chunk(shard_numbers(parameters["shards"], "labels") or ())
        finished = self.dies_after.pop(parameters["shards"], None)
        self.state = Completed() if finished is None else Crashed(message="machine lost")
        given = {"force": parameters["force"], "spent": parameters.get("spent", 0.0)}
        if numbers:
            given["shards"] = Chunk(numbers[:finished])
        execute(config, node_id, parameters["workspace"], **given)
        run = super().run_deployment(name, parameters, timeout, idempotency_key)
        run.total_run_time = timedelta(seconds=100)
        return run


@pytest.fixture
def worker(monkeypatch, tmp_path) -> Iterator[Worker]:
    made = Worker()
    monkeypatch.setattr(call, "get_client", lambda sync_client: nullcontext(made))
    monkeypatch.setattr(call, "run_deployment", made.run_deployment)
    monkeypatch.setattr(call, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(progress, "create_progress_artifact", lambda percent, key, text: made.shown.append(text))
    with disable_run_logger():
        yield made


SMALL = "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}"
FIVE_SHARDS = [SMALL, "modalities=[normal]", "runtime.workers=1", "shards.samples_per_shard=1", "splits.train.count=5"]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A workspace with five shards of images to be labelled."""
    config, workspace = load_config("smoke", None, FIVE_SHARDS), tmp_path_factory.mktemp("images")
    for node in plan(config):
        if node.stage == "prompts" or node.id == "images/train":
            execute(config, node.id, str(workspace))
    return workspace


def labels_elsewhere(
    images: Path, workspace: Path, *overrides: str, **given: Any
) -> tuple[StageOutput, dict[str, bytes]]:
    shutil.copytree(images, workspace, dirs_exist_ok=True)
    config = load_config("smoke", None, ["runtime.deployments={labels: labels/gpu}", *FIVE_SHARDS, *overrides])
    (output,) = call_stage("labels", [find(plan(config), "labels/train-normal")], config, str(workspace), **given)
    return output, {path.name: path.read_bytes() for path in workspace.glob("labels/*/shard-*")}


def divisions(worker: Server) -> list[tuple[str | None, bool]]:
    return [(sent["shards"], sent.get("missing", False)) for sent in worker.sent]


def test_an_artefact_divided_among_runs_is_the_undivided_one(worker, images, tmp_path):
    _, whole = labels_elsewhere(images, tmp_path / "whole")
    assert divisions(worker) == [(None, False)]
    assert not worker.sent[0].keys() & {"missing", "spent"}, "so that an older deployment takes it"
    worker.sent.clear()
    output, divided = labels_elsewhere(images, tmp_path / "divided", "runtime.chunk_shards=2")
    assert divisions(worker) == [("0-1", True), ("2-3", True), ("4", True), (None, False)]
    assert divided == whole
    assert output.seconds >= 300
    assert worker.shown == [f"labels/train-normal: {n} of 3 chunks" for n in (1, 2, 3)]

    worker.sent.clear()
    inodes = {path.stat().st_ino for path in tmp_path.glob("divided/labels/*/shard-*")}
    _, forced = labels_elsewhere(images, tmp_path / "divided", "runtime.chunk_shards=2", force=True)
    assert forced == whole
    assert len(worker.sent) == 4
    assert not inodes & {path.stat().st_ino for path in tmp_path.glob("divided/labels/*/shard-*")}
    for path in [*tmp_path.glob("divided/labels/*/manifest.json"), *tmp_path.glob("divided/labels/*/shard-000003.tar")]:
        path.unlink()
    worker.sent.clear()
    assert labels_elsewhere(images, tmp_path / "divided", "runtime.chunk_shards=2")[1] == whole
    assert divisions(worker) == [(None, False)], "what fits in one chunk is not divided"


def test_a_crashed_chunk_is_sent_again_without_its_finished_shards(worker, images, tmp_path):
    """A run that finished a shard does not count towards `runtime.resend`."""
    worker.dies_after = {"0-2": 1, "1-2": 1}
    _, divided = labels_elsewhere(images, tmp_path, "runtime={chunk_shards: 3, resend: 0}")
    assert [text for text, _ in divisions(worker)] == ["0-2", "3-4", "1-2", "2", None]
    assert len(divided) == 10

    worker.dies_after = {"0-2": 0}
    with pytest.raises(StageFailed, match=r"^labels/train-normal \(labels/gpu\): ended as Crashed: machine lost$"):
        labels_elsewhere(images, tmp_path, "runtime={chunk_shards: 3, resend: 0}", force=True)


def test_chunks_that_end_elsewhere_are_reported_and_not_made_by_the_last_run(server, images, tmp_path):
    server.state = Completed()
    nothing = rf"^labels/train-normal .*shards 0-4 of {tmp_path}/labels/\S+ are not there; the worker must share"
    with pytest.raises(StageFailed, match=nothing):
        labels_elsewhere(images, tmp_path, "runtime.chunk_shards=2")
    assert len(server.sent) == 3


def test_chunks_are_not_too_many_and_only_where_tasks_do_not_divide_the_work(server, images, tmp_path, monkeypatch):
    monkeypatch.setattr(call, "MOST_CHUNKS", 2)
    server.state = Completed()
    for runtime, expected in (("", ["0-2", "3-4"]), (", task_runner: process", [None])):
        server.sent.clear()
        with pytest.raises(StageFailed):
            labels_elsewhere(images, tmp_path, f"runtime={{chunk_shards: 1{runtime}}}")
        assert [text for text, _ in divisions(server)] == expected


def test_what_was_there_before_a_run_crashed_is_not_taken_for_its_work(server, tmp_path, monkeypatch):
    monkeypatch.setattr(call, "_SECONDS_BETWEEN_LOOKS", 0.0)
    config = load_config("smoke", None, ["runtime.deployments={prompts: prompts/cpu}"])
    node = next(node for node in plan(config) if node.stage == "prompts" and not node.inputs)
    execute(config, node.id, str(tmp_path))
    states = iter([Crashed(), Completed()])
    monkeypatch.setattr(server, "next_state", lambda: next(states))
    call_stage("prompts", [node], config, str(tmp_path), force=True)
    assert len(server.sent) == 2


def test_a_server_that_is_away_for_a_while_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(call, "_SECONDS_BETWEEN_LOOKS", 0.01)
    away = iter([httpx.ConnectError("refused")] * 3)
    read, server.state = server.read_flow_run, Completed()

    def sometimes(run_id: UUID) -> FlowRun:
        for error in away:
            raise error
        return read(run_id)

    monkeypatch.setattr(server, "read_flow_run", sometimes)
    images_elsewhere("memory://bucket/away", shards="0")
    assert len(server.sent) == 4
    away = iter([httpx.ConnectError("refused")] * 3)
    monkeypatch.setattr(call, "_OUTAGE", 0)
    with pytest.raises(httpx.ConnectError):
        images_elsewhere("memory://bucket/away", shards="0")


@pytest.mark.parametrize("preset", preset_names())
def test_presets_fit_the_schema_of_a_deployment(preset):
    given = {"config": load_config(preset).model_dump(mode="json")}
    schema = parameter_schema(pipeline.fn).model_dump_for_openapi()
    validate_parameters(given, schema, raise_on_error=True, ignore_required=True)  # as the server does
    assert list(schema["properties"])[-1] == "config"  # often-changed parameters come before it in the form


def test_presets_are_deployed_completely_and_name_existing_deployments():
    assert presets()["mini"] == load_config("mini").model_dump(mode="json")
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {f"{entry['entrypoint'].rpartition(':')[2]}/{entry['name']}" for entry in listed}
    for entry in listed:
        preset = entry["parameters"]["config"].removeprefix("{{ dmp.").removesuffix(" }}")
        config = with_overrides(validate(presets()[preset], preset), entry["parameters"].get("overrides", []))
        assert set(config.runtime.deployments.values()) <= names
    assert "train/gpu" in names
