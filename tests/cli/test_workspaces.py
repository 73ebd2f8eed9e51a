"""`dmp status`, `dmp gc` and `dmp diff` on a real run."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.stages import plan, statuses
from dmp_core.store import Lock, Workspace
from tests.cli.conftest import SMOKE
from tests.commands import in_process


@pytest.fixture
def copy(smoke: Path, tmp_path: Path) -> Path:
    """The run's workspace as if it were two hours old."""
    return aged(Path(shutil.copytree(smoke, tmp_path / "w", copy_function=shutil.copyfile)))


def aged(folder: Path) -> Path:
    then = time.time() - 7200
    for path in folder.rglob("*"):
        os.utime(path, (then, then))
    return folder


def listed(workspace: Path, *options: str) -> dict[str, int]:
    found = json.loads(in_process("gc", workspace, "--json", *options).stdout)
    return {str(Path(one["path"]).relative_to(workspace)): one["bytes"] for one in found["garbage"]}


def files(workspace: Path) -> set[Path]:
    return {path for path in workspace.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------ status
def test_status_counts_what_is_there(copy: Path) -> None:
    shutil.rmtree(copy / ".locks", ignore_errors=True)
    state = json.loads(in_process("status", copy, "--json").stdout)
    stages = {stage["stage"]: stage for stage in state["stages"]}
    assert {name: stages[name]["complete"] for name in ("images", "train", "report", "editor")} == {
        "images": 4, "train": 1, "report": 1, "editor": 0,
    }  # fmt: skip
    assert stages["images"]["samples"] == 10
    manifests = [json.loads(file.read_text()) for file in (copy / "images").glob("*/manifest.json")]
    assert stages["images"]["rate"] == pytest.approx(10 / sum(m["seconds"] for m in manifests), abs=0.01)
    assert (state["unfinished"], state["locks"]) == ([], [])


def test_status_shows_what_runs_and_what_was_interrupted(copy: Path) -> None:
    train = next((copy / "adapters").iterdir())
    images = next((copy / "images").glob("train-*"))
    for folder in (train, images):
        (folder / "manifest.json").unlink()
    with Lock(Workspace(copy), f"train-{train.name}") as lock:
        assert lock.acquire()
        shown = in_process("status", copy).stdout
    assert f"train-{train.name}: running (process {os.getpid()} on " in shown
    assert "train/depth-dmp: unfinished" not in shown
    assert "images/train: unfinished (2 shards finished, last written 2.0 h ago)" in shown
    assert "train/depth-dmp: unfinished" in in_process("status", copy).stdout


def test_a_dead_holder_is_not_running(copy: Path) -> None:
    with Lock(Workspace(copy), "train-x") as lock:
        assert lock.acquire()
        text = (copy / ".locks" / "train-x.lock").read_text()
    (copy / ".locks" / "train-x.lock").write_text(text.replace(f'"pid":{os.getpid()}', '"pid":1'))
    assert "train-x: abandoned; the next run takes it over" in in_process("status", copy).stdout


# ---------------------------------------------------------------------------------------------- gc
def test_a_finished_run_has_no_garbage(copy: Path) -> None:
    assert listed(copy) == {}


@pytest.mark.slow
def test_what_was_tried_goes_and_everything_else_stays(copy: Path) -> None:
    before = files(copy)
    more = ("--set", "train.steps=2")
    in_process("stage", "train", *SMOKE, *more, "--workspace", copy)
    assert listed(copy) == {}  # it was made just now
    tried = next(path for path in (copy / "adapters").iterdir() if path / "dmp.json" not in before)
    leftover = copy / ".scratch" / "train" / "normal-dmp-0123456789ab"
    leftover.mkdir(parents=True)
    (leftover / "checkpoint.bin").write_bytes(b"x" * 1000)
    (copy / "images" / ".shard-000000.tar.1.tmp").write_bytes(b"half")
    aged(copy)
    found = listed(copy)
    assert set(found) == {
        f"adapters/{tried.name}", ".scratch/train/normal-dmp-0123456789ab", "images/.shard-000000.tar.1.tmp",
    }  # fmt: skip
    assert found[f"adapters/{tried.name}"] == sum(path.stat().st_size for path in tried.rglob("*") if path.is_file())
    assert f"adapters/{tried.name}" not in listed(copy, *SMOKE, *more)  # that configuration needs it
    assert tried.exists()
    assert f"adapters/{tried.name}" in listed(copy, "--yes")
    assert {path for path in files(copy) if ".locks" not in path.parts and path.name != ".preset"} == {
        path for path in before if ".locks" not in path.parts and path.name != ".preset"
    }
    config = load_config("smoke", None, ["modalities=[depth]"])
    assert set(statuses(plan(config), Workspace(copy)).values()) == {"complete"}


def test_the_inputs_of_datasets_stay_when_no_run_is_left(copy: Path) -> None:
    shutil.rmtree(copy / "reports")
    in_process("stage", "train", "--preset", "smoke", "--set", "modalities=[depth]", "--workspace", copy)
    kept = {"prompts", "images", "labels", "quality"}
    assert not {Path(name).parts[0] for name in listed(copy)} & kept


def test_nothing_is_deleted_while_a_run_works_or_a_manifest_is_unreadable(copy: Path) -> None:
    with Lock(Workspace(copy), "train-x") as lock:
        assert lock.acquire()
        with pytest.raises(InputError, match=r"train-x is being made \(process .*wait until that run has ended"):
            in_process("gc", copy, "--yes")
    begun = copy / "adapters" / "depth-dmp-0123456789ab"
    begun.mkdir()
    (begun / "dmp.json").write_text("{}")
    with pytest.raises(InputError, match="0123456789ab was begun within the last hour"):
        in_process("gc", copy, "--yes")
    shutil.rmtree(begun)
    next((copy / "labels").glob("*/manifest.json")).write_bytes(b"\0\0")
    with pytest.raises(InputError, match=r"manifest\.json: damaged, or of another artefact"):
        in_process("gc", copy)
    with pytest.raises(InputError, match="no such workspace"):
        in_process("gc", copy / "nowhere")


# -------------------------------------------------------------------------------------------- diff
def test_diff_lists_settings_and_scores(smoke: Path, copy: Path) -> None:
    report = next((copy / "reports").iterdir())
    manifest = json.loads((report / "manifest.json").read_text())
    manifest["config"]["pipeline"]["train"]["steps"] = 99
    metrics = json.loads((report / "metrics.json").read_text())
    rows = metrics["metrics"]["depth"]["in_domain"]["DMP"]["metrics"]["abs_rel"]
    was, rows["mean"] = rows["mean"], 0.25
    (report / "manifest.json").write_text(json.dumps(manifest))
    (report / "metrics.json").write_text(json.dumps(metrics))
    found = json.loads(in_process("diff", smoke, copy, "--json").stdout)
    assert found["settings"] == {"train.steps": {"left": 3, "right": 99}}
    pairs = {(pair["split"], pair["row"]): (pair["left"], pair["right"]) for pair in found["scores"]}
    assert pairs["in_domain", "DMP"] == (was, 0.25)
    assert pairs["out_of_domain", "DMP"][0] == pairs["out_of_domain", "DMP"][1]
    shown = in_process("diff", smoke, copy).stdout
    assert "train.steps" in shown
    assert f"{0.25 - was:+.4g}" in shown


def test_diff_reads_files_and_artefacts(smoke: Path, tmp_path: Path) -> None:
    for name, steps in (("a", 10), ("b", 20)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"train": {"steps": steps}}))
    found = json.loads(in_process("diff", tmp_path / "a.yaml", tmp_path / "b.yaml", "--json").stdout)
    assert found["settings"] == {"train.steps": {"left": 10, "right": 20}}
    adapter = next((smoke / "adapters").iterdir())
    assert in_process("diff", adapter, adapter).stdout.strip() == "equal settings"
    evaluation = next((smoke / "evaluations").iterdir())
    assert json.loads(in_process("diff", evaluation, smoke, "--json").stdout)["scores"][0]["left"] is not None
    with pytest.raises(InputError, match="no finished run here; give a workspace"):
        in_process("diff", smoke, tmp_path)
