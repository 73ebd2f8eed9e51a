"""A folder of your own images through `dmp dataset import`: shards, predictions, scores and a report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.store import open_dataset
from tests.commands import in_process
from tests.making import make
from tests.report.rooms import room

pytestmark = pytest.mark.slow

SAVED = [("jpg", "RGB"), ("png", "RGBA"), ("webp", "RGB"), ("bmp", "RGB"), ("tif", "L"), ("jpeg", "CMYK"), ("png", "P")]


def write_photos(folder: Path, count: int = 20) -> None:
    """A real photo's parts, in all file types, modes, sizes and orientations."""
    folder.mkdir()
    photo = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    for index in range(count):
        suffix, mode = SAVED[index % len(SAVED)]
        part = photo.crop((10 * index, 15 * index, 10 * index + 90 + 17 * (index % 5), 15 * index + 120))
        exif = Image.Exif()
        exif[0x0112] = 1 + index % 8
        part.convert(mode).save(folder / f"{index:02d}.{suffix}", exif=exif)


def write_rooms(folder: Path, seeds: range, tasks: tuple[str, ...] = ("normal",)) -> None:
    folder.mkdir(parents=True)
    for seed in seeds:
        arrays = room(seed)
        Image.fromarray(arrays["rgb"]).save(folder / f"room{seed}.png")
        for task in tasks:
            extension, data = find_modality(task).member, find_modality(task).encode(arrays[task])
            (folder / f"room{seed}.{extension}").write_bytes(data)


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("import")
    write_photos(folder / "photos")
    done = in_process("dataset", "import", folder / "photos", "-p", "smoke", "-w", folder / "runs")
    return folder, done.stdout


def test_photos_become_a_dataset_that_opens_anywhere(imported):
    import webdataset

    split = imported[0] / "runs" / "datasets" / "photos" / "arbitrary"
    urls = sorted(map(str, split.glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"arbitrary-{index:08d}" for index in range(20)]
    assert {sample["png"].shape for sample in samples} == {(32, 32, 3)}
    assert samples[3]["json"]["source"]["file"] == "03.bmp"
    assert set(samples[3]["json"]["labels"].values()) == {""}
    assert [sample["__key__"] for sample in open_dataset(str(split))] == [sample["__key__"] for sample in samples]
    card = (split.parent / "README.md").read_text()
    assert "license: other" in card
    assert "synthetic" not in card


def test_photos_are_predicted_for_every_task_and_shown(imported):
    folder, said = imported
    paths = [Path(line) for line in re.findall(r"^predictions: (.*)$", said, re.MULTILINE)]
    assert [path.name.split("-")[1] for path in paths] == list(BUILT_IN)
    assert all(len(list(open_dataset(str(path)))) == 20 for path in paths)
    report = folder / "runs" / "report"
    assert f"report: {report}/index.html" in said
    page = (report / "index.html").read_text()
    for task in BUILT_IN:
        assert f"arbitrary-00000019-{task}-prediction" in page
    assert "03.bmp, " in page
    assert "<q></q>" not in page
    assert "SmolLM" not in page.partition('id="provenance"')[2].partition("<details")[0]
    assert json.loads((report / "metrics.json").read_text())["metrics"] == {}


def test_a_second_import_and_its_configuration_find_everything_done(imported):
    folder, _ = imported
    workspace, config = str(folder / "runs"), str(folder / "runs" / "datasets" / "photos.yaml")
    again = CliRunner().invoke(app, ["dataset", "import", str(folder / "photos"), "-p", "smoke", "-w", workspace])
    assert again.exit_code == 0
    assert "✓" not in again.stdout
    planned = CliRunner().invoke(app, ["plan", "-c", config, "-w", workspace, "--json"])
    assert {row["status"] for row in json.loads(planned.stdout)["artefacts"]} == {"complete"}


def test_a_labelled_folder_is_trained_on_and_scored(tmp_path):
    write_rooms(tmp_path / "rooms" / "train", range(6))
    write_rooms(tmp_path / "rooms" / "in_domain", range(6, 9))
    workspace = tmp_path / "runs"
    steps = ["--set", "modalities=[normal]", "--set", "train.steps=2"]
    in_process("dataset", "import", tmp_path / "rooms", "-p", "smoke", "-w", workspace, *steps)

    metrics = json.loads((workspace / "report" / "metrics.json").read_text())
    assert metrics["training"]["normal"]["source"] == "trained in this run"
    rows = metrics["metrics"]["normal"]["in_domain"]
    assert set(rows) == {"DMP", "VAE ceiling", "constant", "mean map"}
    predicted = next((workspace / "predictions").glob("in_domain-normal-dmp-*"))
    angles = []
    for seed, sample in zip(range(6, 9), open_dataset(str(predicted)), strict=True):
        ours = np.asarray(sample["normal.png"]) / 127.5 - 1
        ours /= np.linalg.norm(ours, axis=-1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip((ours * room(seed)["normal"]).sum(-1), -1, 1))).mean())
    # Labels are 8-bit codes: good to a fraction of a degree.
    assert rows["DMP"]["metrics"]["angular_deg"]["mean"] == pytest.approx(np.mean(angles), abs=0.2)


def test_labels_without_a_training_set_are_scored_without_a_constant(tmp_path, caplog):
    """With depths in millimetres, and class maps without labels."""
    write_rooms(tmp_path / "rooms", range(2), ())
    for seed in range(2):
        labels = {"depth": room(seed)["depth"] * 1000, "segmentation": np.full((32, 32), 255, np.uint8)}
        for task, label in labels.items():
            extension, data = find_modality(task).member, find_modality(task).encode(label)
            (tmp_path / "rooms" / f"room{seed}.{extension}").write_bytes(data)
    file = tmp_path / "mine.yaml"
    values = load_config("smoke").model_dump(mode="json") | {
        "splits": {"arbitrary": {"folder": str(tmp_path / "rooms")}},
        "modalities": ["depth", "segmentation", "shading"],
        "adapters": {task: f"shipped:{task}" for task in ("depth", "segmentation", "shading")},
    }
    file.write_text(json.dumps({"extends": None} | values))
    config = load_config("mini", file)
    make(tmp_path / "runs", config)
    report = tmp_path / "runs" / "report"
    written = json.loads((report / "metrics.json").read_text())
    metrics = written["metrics"]
    assert set(metrics) == {"depth", "segmentation"}
    for task in metrics:
        assert set(metrics[task]["arbitrary"]) == {"DMP", "VAE ceiling"}
    assert metrics["segmentation"]["arbitrary"]["DMP"]["metrics"]["mean_iou"]["mean"] is None
    assert metrics["depth"]["arbitrary"]["DMP"]["metrics"]["abs_rel"]["mean"] > 0.9
    depth, *classes = written["notes"]
    assert depth.startswith("Arbitrary: 2 of 2 depth labels look wrong (far")
    assert "are they millimetres?" in depth
    assert len(classes) == 2  # nothing labelled, and no class
    assert [record.getMessage().partition("warning: ")[2] for record in caplog.records] == [
        note.removeprefix("Arbitrary: ") for note in written["notes"]
    ]
    page = (report / "index.html").read_text()
    assert "arbitrary-00000000-shading-prediction" in page
    assert "constant predictor (left)" not in page


def test_a_workspace_among_the_photos_is_refused(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path / "photos")
    run = CliRunner().invoke(app, ["dataset", "import", ".", "-p", "smoke"])
    assert isinstance(run.exception, InputError)
    assert "--workspace runs/default: is inside ." in str(run.exception)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    linked = CliRunner().invoke(app, ["dataset", "import", "../photos", "-p", "smoke", "-w", str(tmp_path / "link/w")])
    assert "is inside ../photos" in str(linked.exception)
    assert [path.name for path in (tmp_path / "photos").iterdir() if path.is_dir()] == []


def test_a_broken_photo_is_named_before_any_work(tmp_path):
    write_photos(tmp_path / "photos", 4)
    photo = tmp_path / "photos" / "00.jpg"
    photo.write_bytes(photo.read_bytes()[:-900])
    result = CliRunner().invoke(app, ["dataset", "import", str(tmp_path / "photos"), "-w", str(tmp_path / "runs")])
    assert isinstance(result.exception, InputError)
    assert "00.jpg: not a readable image" in str(result.exception)
    assert not (tmp_path / "photos" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["photos", "--hold-out", "2"], "--hold-out 2: give a share between 0 and 1"),
        (["photos", "--hold-out", "0.5", "--split", "train"], "--split, --hold-out: give one of the two"),
        (["photos", "--fit", "stretch"], "splits.arbitrary.fit"),
        (["split", "--split", "train"], "already has a folder train"),
        (["split"], "stray.png: image next to the split folders"),
        (["photos", "--set", "base.model=some/model", "--set", "adapters={}"], "nothing to make"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 1)
    write_rooms(tmp_path / "split" / "train", range(1))
    Image.new("RGB", (8, 8)).save(tmp_path / "split" / "stray.png")
    result = CliRunner().invoke(app, ["dataset", "import", *arguments])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
