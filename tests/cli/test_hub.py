"""Datasets and adapters to the hub and back, against a loopback stand-in of its HTTP API."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from dmp_core.config import load_config
from dmp_core.errors import InputError, RunError
from dmp_core.requests.hub import adapter_upload, dataset_upload, pull_adapter, pull_dataset
from dmp_core.resources import manifest_root
from dmp_core.store import open_dataset
from tests.cli.hub_stand_in import Hub
from tests.commands import in_process

TOKEN = "hf_verysecret"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)  # of HF_ENDPOINT, which is read at import
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    yield server
    server.close()


def adapter_in(workspace: Path) -> Path:
    return next((workspace / "adapters").iterdir())


# -------------------------------------------------------------------------------------- datasets
@pytest.mark.slow
def test_a_dataset_goes_and_comes_back(smoke: Path, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    folder = smoke / "datasets" / "smoke"
    shown = in_process("dataset", "push", folder, "me/rooms").output
    assert hub.private == {"datasets/me/rooms": True}
    assert hub.tokens - {None} == {f"Bearer {TOKEN}"}
    assert TOKEN not in shown + caplog.text
    files = hub.repositories["datasets/me/rooms"]
    assert files["README.md"] == (folder / "README.md").read_bytes()
    assert b"<title>" in files["report/index.html"]
    Path("again.yaml").write_bytes(files["config.yaml"])
    assert load_config(file="again.yaml", preset="mini").splits == load_config("smoke").splits

    in_process("dataset", "pull", "me/rooms", "--workspace", "w", "--name", "theirs")
    for split in ("train", "in_domain", "out_of_domain", "arbitrary"):
        ours, theirs = (list(open_dataset(str(root / split))) for root in (folder, Path("w/datasets/theirs")))
        assert [sample["__key__"] for sample in ours] == [sample["__key__"] for sample in theirs]
        assert [sample["json"] for sample in ours] == [sample["json"] for sample in theirs]
    in_process("dataset", "verify", "w/datasets/theirs")
    assert sorted(path.name for path in Path("w/datasets").iterdir()) == ["theirs"]
    with pytest.raises(InputError, match="theirs: exists; choose another name"):
        in_process("dataset", "pull", "me/rooms", "--workspace", "w", "--name", "theirs")


def test_a_pulled_dataset_can_be_trained_on(smoke: Path, hub: Hub) -> None:
    """As files: what `dmp dataset import` reads are its images, captions and labels."""
    in_process("dataset", "push", smoke / "datasets" / "smoke", "me/rooms")
    in_process("dataset", "pull", "me/rooms", "--workspace", "w")
    in_process("export", "w/datasets/rooms", "--format", "imagefolder", "--out", "files")
    in_process("dataset", "import", "files", "--only-dataset", "--preset", "smoke", "--workspace", "w")
    settings = yaml.safe_load(Path("w/datasets/files.yaml").read_text())
    assert set(settings["splits"]) == {"train", "in_domain", "out_of_domain", "arbitrary"}
    ours, theirs = (list(open_dataset(f"w/datasets/{name}/train")) for name in ("rooms", "files"))
    assert [sample["json"]["prompt"] for sample in ours] == [sample["json"]["prompt"] for sample in theirs]
    assert abs(ours[0]["depth.npy"] - theirs[0]["depth.npy"]).max() < 0.01


def test_a_dry_run_lists_files_and_asks_nobody(smoke: Path, hub: Hub) -> None:
    folder = smoke / "datasets" / "smoke"
    shown = in_process("dataset", "push", folder, "me/rooms", "--dry-run").output
    shard = folder / "train" / "shard-000000.tar"
    assert f"{shard.stat().st_size:>12,}  train/shard-000000.tar" in shown
    assert "would go to the dataset me/rooms (private if it is new)" in shown
    shown = in_process("adapter", "push", adapter_in(smoke), "me/depth", "--dry-run", "--public").output
    assert "adapter_model.safetensors" in shown
    assert "(public if it is new)" in shown
    assert hub.asked == []


def test_what_changed_on_the_way_is_refused_and_leaves_nothing(smoke: Path, hub: Hub) -> None:
    in_process("dataset", "push", smoke / "datasets" / "smoke", "me/rooms")
    files = hub.repositories["datasets/me/rooms"]
    shard = files["train/shard-000000.tar"]
    for damage, reason in (
        ({"train/shard-000000.tar": shard[:-1] + b"x"}, r"train/shard-000000\.tar: missing, or its bytes have changed"),
        (
            {"train/manifest.json": files["train/manifest.json"].replace(b'"shard-', b'"../shard-')},
            "outside its folder",
        ),
        ({name: None for name in files if name.endswith("manifest.json")}, "no split with a manifest"),
    ):
        hub.repositories["datasets/me/bad"] = {k: v for k, v in (files | damage).items() if v is not None}
        with pytest.raises(InputError, match=f"^me/bad: not a whole dataset of this program .*{reason}"):
            pull_dataset("me/bad", "w", "bad")
        assert list(Path("w/datasets").iterdir()) == []
    copy = Path(shutil.copytree(smoke / "datasets" / "smoke", "copy", copy_function=shutil.copyfile))
    (copy / "train" / "shard-000000.tar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"shard-000000\.tar: missing, or its bytes have changed"):
        dataset_upload(str(copy))


# -------------------------------------------------------------------------------------- adapters
def test_an_adapter_goes_comes_back_and_predicts(smoke: Path, hub: Hub) -> None:
    ours = adapter_in(smoke)
    in_process("adapter", "push", ours, "me/depth", "--public")
    assert hub.private == {"models/me/depth": False}
    files = hub.repositories["models/me/depth"]
    assert b"| in\\_domain | REL" in files["README.md"]
    assert b"<title>" in files["report/index.html"]
    assert "extends: null" in files["config.yaml"].decode()
    in_process("adapter", "pull", "me/depth")
    for name in ("adapter_model.safetensors", "adapter_config.json", "dmp.json"):
        assert (Path("adapters/depth") / name).read_bytes() == (ours / name).read_bytes()
    image = next(Path(smoke / "report" / "images").glob("*rgb.jpg"))
    in_process("predict", image, "--adapter", "adapters/depth", "--out", "found")
    assert list(Path("found").glob("*depth*"))


def test_a_shipped_adapter_keeps_its_card(hub: Hub) -> None:
    shown = in_process("adapter", "card", "shipped:normal").output
    assert shown == (manifest_root() / "adapters" / "normal" / "README.md").read_text()
    assert "14.2°" in shown
    assert set(adapter_upload("shipped:normal").files) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "dmp.json", "loss.csv",
    }  # fmt: skip


@pytest.mark.slow
def test_a_damaged_adapter_or_one_of_code_is_refused(smoke: Path, hub: Hub) -> None:
    in_process("adapter", "push", adapter_in(smoke), "me/depth")
    files = hub.repositories["models/me/depth"]
    weights = "adapter_model.safetensors"
    for damage, reason in (
        ({weights: files[weights][:100]}, "cannot be read as LoRA weights"),
        ({weights: None}, "no adapter here"),
        ({weights: None, "pytorch_lora_weights.bin": b"code"}, "no adapter here"),
        ({"dmp.json": None}, r"dmp\.json: missing; an adapter that is handed over"),
        ({"dmp.json": b'{"num_steps": "many"}'}, "num_steps"),
    ):
        hub.repositories["models/me/bad"] = {k: v for k, v in (files | damage).items() if v is not None}
        with pytest.raises(InputError, match=f"^me/bad: not a whole adapter .*{reason}"):
            pull_adapter("me/bad", Path("bad"))
        assert not Path("bad").exists()
    assert {path.name for path in Path().iterdir()} <= {"cache"}


def test_refusals_are_one_line_without_the_token(smoke: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^me/none: the hub refuses \(404\); check the name"):
        pull_adapter("me/none", Path("none"))
    for status in (401, 403):
        hub.refuses = status
        with pytest.raises(
            InputError, match=rf"^me/x: the hub refuses \({status}\); set HF_TOKEN to a token that may"
        ) as e:
            in_process("adapter", "push", "shipped:normal", "me/x")
        assert TOKEN not in str(e.value)
    with pytest.raises(InputError, match="not a repository's name; write it as USER/NAME"):
        in_process("adapter", "push", "shipped:normal", "../x")
    with pytest.raises(InputError, match=r"--name \.\./x: not a folder's name"):
        pull_dataset("me/rooms", "w", "../x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match=r"me/x: the hub cannot be reached \(HF_HUB_OFFLINE is set\)"):
        pull_adapter("me/x", Path("none"))


def test_the_stand_in_is_asked_for_wanted_files_only(smoke: Path, hub: Hub) -> None:
    in_process("adapter", "push", adapter_in(smoke), "me/depth")
    hub.repositories["models/me/depth"]["evil.py"] = b"code"
    pull_adapter("me/depth", Path("mine"))
    assert not any("evil" in path for path in hub.asked)
    assert json.loads(Path("mine/dmp.json").read_text())["task"] == "depth"
