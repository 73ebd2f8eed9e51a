"""The whole DAG with the smoke preset, through the command line, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dmp_core.cli import app, ship
from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.stages import execute, find, plan
from dmp_core.store import Workspace
from tests.commands import in_process
from tests.timed import TIMED

pytestmark = pytest.mark.slow

PLANTED = "planted0secret"
SECRETS = {name: PLANTED for name in ("HF_TOKEN", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")}


def dmp(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dmp_core.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **SECRETS, "COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


FOREIGN, OTHER_BOOT = (
    json.dumps(
        {"token": "x", "beat": 1, "host": host, "machine": "a boot of", "pid": os.getpid(), "started": "1"}
    ).encode()
    for host in ("far", socket.gethostname())
)
"""Locks whose holder cannot be checked."""


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes by name, without files that contain times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(TIMED) and "tfevents" not in path.name
    }


def digest(folder: Path) -> dict[str, tuple[int, int]]:
    """Name → (inode, modification time), which shows whether a file was rewritten."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def statuses(workspace: Path, *arguments: str) -> dict[str, str]:
    done = CliRunner().invoke(app, ["plan", "-p", "smoke", "-w", str(workspace), "--json", *arguments])
    return {row["id"]: row["status"] for row in json.loads(done.stdout)["artefacts"]}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    done = dmp("run", "-p", "smoke", "-w", str(folder))
    assert PLANTED not in done.stdout + done.stderr
    return folder


def test_run_ends_with_report_and_metrics_for_every_task(workspace):
    metrics = json.loads((workspace / "report" / "metrics.json").read_text())
    text = json.dumps(metrics)
    for task in ("normal", "depth", "segmentation", "albedo", "shading"):
        assert task in text
    for split in ("in_domain", "out_of_domain"):
        assert split in text
    html = (workspace / "report" / "index.html").read_text()
    assert not re.search(r"""(src|href)=["']https?://""", html.replace("<a ", "<a-"))
    assert set(statuses(workspace).values()) == {"complete"}


def test_no_secret_of_the_environment_is_written_anywhere(workspace):
    places = [workspace, *(Path(os.environ[name]) for name in ("PREFECT_HOME",) if name in os.environ)]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.suffix == ".tar" for path in files)
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]


def test_second_run_does_nothing(workspace):
    before = digest(workspace)
    done = dmp("run", "-p", "smoke", "-w", str(workspace))
    assert re.search(r"all \d+ cached", done.stdout)
    assert digest(workspace) == before


def test_deleted_shard_is_redone_alone_and_byte_identical(workspace):
    shard = next((workspace / "images").glob("train-*")) / "shard-000001.tar"
    content, before = shard.read_bytes(), digest(workspace)
    shard.unlink()
    assert statuses(workspace)["images/train"] == "partial"
    in_process("run", "-p", "smoke", "-w", workspace)
    assert shard.read_bytes() == content
    changed = {name for name, state in digest(workspace).items() if before[name] != state}
    folder = shard.parent.relative_to(workspace).as_posix()
    assert changed == {f"{folder}/shard-000001.tar", f"{folder}/shard-000001.json", f"{folder}/manifest.json"}


@pytest.mark.e2e
def test_sigterm_ends_a_run_with_all_its_processes_and_the_rerun_resumes_at_the_missing_shard(tmp_path):
    slow = ["images={resolution: 64, samples_per_pixel: 512}", "runtime.workers=1"]  # seconds per image
    config = load_config("smoke", None, slow)
    for node in plan(config):
        if node.stage == "prompts":
            execute(config, node.id, str(tmp_path))
    folder = Path(find(plan(config), "images/train").artefact(Workspace(tmp_path)).path)

    chosen = [word for setting in slow for word in ("--set", setting)]
    command = [sys.executable, "-m", "dmp_core.cli", "stage", "images", "--split", "train", "-p", "smoke", *chosen]
    run = subprocess.Popen([*command, "-w", str(tmp_path)], start_new_session=True)
    try:
        while not (folder / "shard-000000.json").exists():
            assert run.poll() is None
            time.sleep(0.05)
        before = digest(folder)
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 128 + signal.SIGTERM
        until = time.monotonic() + 10
        with suppress(ProcessLookupError):  # once the group, with the server that Prefect started, has ended
            while True:
                os.killpg(run.pid, 0)
                assert time.monotonic() < until
                time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert digest(folder) == before
    assert not list((tmp_path / ".locks").iterdir())
    assert not list(folder.glob(".*"))

    assert not execute(config, "images/train", str(tmp_path)).cached
    after = digest(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"shard-000001.json", "shard-000001.tar", "manifest.json"}


def test_threads_are_recorded_where_torch_computes_and_nowhere_else(workspace):
    recorded = {
        stage: {"threads" in json.loads(sidecar.read_text()) for sidecar in (workspace / stage).rglob("shard-*.json")}
        for stage in ("images", "labels", "datasets", "latents", "predictions")
    }
    assert recorded == {
        "images": {False},
        "labels": {False},
        "datasets": {False},
        "latents": {True},
        "predictions": {True},
    }


@pytest.mark.e2e
def test_locks_of_a_lost_machine_are_taken_over_in_every_stage(workspace, tmp_path, monkeypatch, caplog):
    """One shard per stage is lost, and a machine that held its lock; then an artefact without shards."""
    copy, locks = tmp_path / "w", []
    shutil.copytree(workspace, copy)
    (copy / ".locks").mkdir(exist_ok=True)
    before = contents(copy)
    nodes = plan(load_config("smoke"))
    lost = {"images": b"", "labels": b"null", "latents": FOREIGN, "predict": OTHER_BOOT, "shards": FOREIGN}
    for stage, content in lost.items():
        node = next(node for node in nodes if node.stage == stage)
        shard = next(Path(node.artefact(Workspace(copy)).path).glob("shard-000000.[ts]*"))
        shard.unlink()
        locks.append((f"{stage}-{node.name}-{node.fingerprint}-{shard.name}", content))
    report = next(node for node in nodes if node.stage == "report")
    shutil.rmtree(report.artefact(Workspace(copy)).path)
    locks.append((f"report-{report.name}-{report.fingerprint}", b""))
    for name, content in locks:
        (copy / ".locks" / f"{name.replace('/', '-')}.lock").write_bytes(content)
    monkeypatch.setattr("dmp_core.store.locks.STALE", 1)
    in_process("run", "-p", "smoke", "-w", copy)
    assert caplog.text.count("lock taken over") == len(locks)
    assert list((copy / ".locks").iterdir()) == []
    after = contents(copy)
    assert {name for name in before if before[name] != after.get(name)} == set()


def test_learning_rate_redoes_train_to_report_only(workspace):
    plan = statuses(workspace, "--set", "train.learning_rate=0.002")
    assert {node.split("/")[0] for node, state in plan.items() if state != "complete"} == {
        "train", "predict", "evaluate", "report",
    }  # fmt: skip


def test_a_finished_adapter_is_shipped_at_half_its_size(workspace, tmp_path):
    ship.main("smoke", str(workspace), tmp_path, ["depth"])
    assert [folder.name for folder in tmp_path.iterdir()] == ["depth"]
    trained = find(plan(load_config("smoke")), "train/depth-dmp").artefact(Workspace(workspace)).local_path()
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (trained, tmp_path / "depth"))
    assert all(torch.equal(weight, before[name].half()) for name, weight in after.items())
    assert statuses(tmp_path / "w", "--set", f"adapters.depth={tmp_path / 'depth'}")["train/depth-dmp"] == "missing"


def test_new_dataset_opens_with_webdataset_and_datasets(tmp_path):
    in_process("dataset", "new", "-p", "smoke", "-k", "kitchen", "-n", 3, "-w", tmp_path)
    folder = tmp_path / "datasets" / "kitchen" / "train"
    urls = sorted(map(str, folder.glob("*.tar")))
    members = {"png", "json", "normal.png", "depth.npy", "seg.png", "albedo.png", "shading.png"}

    import webdataset

    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"train-{index:08d}" for index in range(3)]
    assert members <= set(samples[0])
    assert samples[0]["depth.npy"].dtype == "float16"
    assert samples[0]["json"]["keyword"] == "kitchen"

    import datasets

    loaded = datasets.load_dataset("webdataset", data_files={"train": urls}, split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 3
    assert members <= set(loaded.column_names)
    assert (tmp_path / "datasets" / "kitchen" / "README.md").exists()
    assert "every shard is unchanged" in " ".join(in_process("dataset", "verify", folder.parent).stdout.split())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--set", "train.stepz=1"], "train.stepz: unknown setting"),
        (["run", "--set", "splits.out_of_domain.keywords_file=nowhere.txt"], "nowhere.txt"),
        (["dataset", "new", "--keywords", "missing.txt"], "missing.txt"),
        (["plan", "-p", "nothing"], "choose one of"),
        (["stage", "cooking"], "choose one of: prompts"),
        (["dataset", "verify", "/nowhere"], "no finished dataset here"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, named):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert named in str(result.exception)


def test_unreadable_shard_is_named_and_nothing_lost(workspace):
    shard = next((workspace / "labels").glob("in_domain-depth-*")) / "shard-000000.tar"
    content, before = shard.read_bytes(), digest(workspace)
    try:
        shard.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
        command = ("stage", "shards", "--split", "in_domain", "-p", "smoke", "-w", workspace, "--force")
        error = in_process(*command, fails=True).exception
        assert isinstance(error, InputError)
        assert "shard-000000.tar" in str(error)
        assert "delete it" in str(error)
    finally:
        shard.write_bytes(content)
    in_process("run", "-p", "smoke", "-w", workspace)
    assert set(before) <= set(digest(workspace))
