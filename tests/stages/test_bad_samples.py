"""A sample that fails affects only itself: it is skipped, recorded, counted, and never improves a score."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.modalities import find_modality
from dmp_core.requests.imports import check_pixels, import_settings, store_settings
from dmp_core.requests.predict_files import predict_files
from dmp_core.requests.predictor import Predictor, find_targets
from dmp_core.runtime import BadSampleConfig
from dmp_core.scoring.protocol import ScoreTable
from dmp_core.stages import execute, find, plan
from dmp_core.stages.status import statuses
from dmp_core.stages.verify import verify_workspace
from dmp_core.store import Artefact, FileRecord, SkipCount, Skipped, Workspace, read_artefact, sidecars
from dmp_core.synthesis.checking import check_folder
from dmp_core.synthesis.listing import read_folder
from tests.making import DATA, make
from tests.packages import installed_package
from tests.report.rooms import room
from tests.stages.test_shards import opened, samples

PACKAGE = '''
from typing import Literal

import numpy as np
import torch

from dmp_core.methods.settings import MethodConfig
from dmp_core.errors import InputError

def build(weights, device, *, batch_size=1, refuses=False):
    """One depth everywhere, and NaN for images whose first pixel is red; or it cannot be built at all."""
    if refuses:
        raise InputError("flat: no such weights")
    def label(images):
        depth = 1 + images.mean((1, 2, 3)).reshape(-1, 1, 1).expand(-1, *images.shape[2:]).clone()
        depth[(images[:, :, 0, 0] == torch.tensor([1.0, 0, 0])).all(1)] = torch.nan
        return {"depth": depth}
    return label

class Settings(MethodConfig):
    method: Literal["near"] = "near"

class Near:
    """Two metres everywhere, and NaN for images whose first pixel is green."""
    name, title, needs, settings = "near", "Near", "images", Settings

    def fit(self, settings, problem, data, work, out, *, device, progress):
        (out / "near.txt").write_text("2")
        return {"keys": list(data.image_pairs().keys)}

    def load(self, folder, problem, inference, *, device):
        def predict(images, keys):
            depth = np.full(images.shape[:3], 2.0)
            depth[(images[:, 0, 0] == [0, 255, 0]).all(1)] = np.nan
            return depth
        return predict
'''
ENTRY_POINTS = "[dmp.labelers]\nflat = near_package:build\n[dmp.methods]\nnear = near_package:Near\n"
RED, GREEN = (255, 0, 0), (0, 255, 0)
SKIP = ["runtime.on_bad_sample={policy: skip, at_most: 0.5}"]


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An installed package with entry points for a labeler and a method."""
    with installed_package(tmp_path_factory.mktemp("site"), "near_package", PACKAGE, ENTRY_POINTS):
        yield


def write_images(folder: Path, count: int, marks: dict[int, tuple[int, int, int]], broken: int | None = None) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        rgb = room(index + 100 * len(folder.name))["rgb"].copy()
        rgb[0, 0] = marks.get(index, (9, 9, 9))
        Image.fromarray(rgb).save(folder / f"{index}.png")
    if broken is not None:
        (folder / f"{broken}.png").write_bytes((folder / f"{broken}.png").read_bytes()[:20])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 7 for training, 2 and 3, a whole shard, get no label, 5 is broken; of 6 others, 1 gets no label, 4 fails."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "train", 7, {2: RED, 3: RED}, broken=5)
    write_images(folder / "in_domain", 6, {1: RED, 4: GREEN})
    return folder


def configuration(images: Path, *more: str) -> PipelineConfig:
    labeler = "labels.depth={kind: flat, weights: any, batch_size: 2}"
    values = load_config("smoke", None, ["dataset=rooms", "modalities=[depth]", labeler, *more]).model_dump(mode="json")
    values["splits"] = {name: {"folder": str(images / name)} for name in ("train", "in_domain")}
    return validate(values, "test")


@pytest.fixture(scope="module")
def made(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineConfig, Path]:
    workspace = tmp_path_factory.mktemp("made")
    config = configuration(images, *SKIP)
    make(workspace, config)
    return config, workspace


def artefact(made: tuple[PipelineConfig, Path], node_id: str) -> Artefact:
    return find(plan(made[0]), node_id).artefact(Workspace(made[1]))


def key(split: str, index: int) -> str:
    return f"{split}-{index:08d}"


def keys(artefact: Artefact) -> list[str]:
    return [sample["__key__"] for sample in read_artefact(artefact)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


# ------------------------------------------------------------------------------------- records
def test_failed_samples_are_in_sidecar_and_manifest_with_their_reason(made):
    images, labels = artefact(made, "images/train"), artefact(made, "labels/train-depth")
    assert keys(images) == [key("train", index) for index in (0, 1, 2, 3, 4, 6)]
    assert keys(labels) == [key("train", index) for index in (0, 1, 4, 6)]
    prompts = artefact(made, "prompts/train").published()
    assert prompts.details["skipped"].keys() == {key("train", 5)}
    assert prompts.details["skipped"][key("train", 5)].startswith("5.png: not a readable image")
    assert images.published().skipped == prompts.details["skipped"]
    skipped = labels.published().skipped
    assert skipped.keys() == {key("train", index) for index in (2, 3, 5)}
    assert "NaN" in skipped[key("train", 2)]
    assert [sorted(record.skipped) for record in sidecars(labels)] == [
        [], [key("train", 2), key("train", 3)], [key("train", 5)], [],
    ]  # fmt: skip
    assert (labels.published().samples, labels.verify(), labels.status()) == (4, [], "complete")


def test_skipped_samples_are_not_reported_as_damage(made):
    assert list(verify_workspace(Workspace(made[1]))) == []


def test_a_record_without_failures_has_the_bytes_that_it_had_before_there_were_any():
    assert "skipped" not in json.loads(FileRecord(name="a", bytes=1, sha256="0").model_dump_json())


# ------------------------------------------------------------------------------ later stages
@pytest.mark.parametrize("way", ["plain", "streaming"])
def test_the_dataset_opens_without_them(made, tmp_path, way):
    dataset = made[1] / "datasets" / "rooms"
    left = {"train": (0, 1, 4, 6), "in_domain": (0, 2, 3, 4, 5)}
    expected = {split: [key(split, index) for index in indices] for split, indices in left.items()}
    rows = opened(dataset, tmp_path, way)
    assert {split: [row["__key__"] for row in found] for split, found in rows.items()} == expected
    assert [sample["__key__"] for sample in samples(dataset)] == [*expected["in_domain"], *expected["train"]]


def test_each_image_has_its_own_label(made):
    for sample in samples(made[1] / "datasets" / "rooms"):
        pixels = np.asarray(Image.open(io.BytesIO(sample["png"]))) / 255
        depth = np.load(io.BytesIO(sample["depth.npy"]))
        np.testing.assert_allclose(depth, 1 + pixels.mean(), rtol=2e-3)


def test_card_and_report_count_them(made):
    dataset = made[1] / "datasets" / "rooms"
    card = (dataset / "README.md").read_text()
    assert "since they could not be made (`failed`)" in card
    assert "`train` 3 (failed 3)" in card
    merged = artefact(made, "shards/rooms/train").published()
    assert merged.details["dropped"] == {"failed": 3}
    assert merged.details["skipped"] == artefact(made, "labels/train-depth").published().skipped
    report = json.loads((made[1] / "report" / "metrics.json").read_text())
    assert report["quality"]["dropped"] == {"train": {"failed": 3}, "in_domain": {"failed": 1}}
    assert report["statistics"]["train"]["images"] == 4
    assert "failed, so skipped" in (made[1] / "report" / "index.html").read_text()


def test_training_learns_from_the_others(made):
    details = artefact(made, "train/depth-dmp").published().details
    assert (details["images"], details["dropped"]) == (4, {"failed": 3})


def test_a_finished_run_makes_nothing_again_under_either_policy(made, images):
    failing = configuration(images, "runtime.on_bad_sample.policy=skip")
    workspace = Workspace(made[1])
    assert set(statuses(plan(failing), workspace).values()) == {"complete"}
    assert execute(made[0], "labels/train-depth", str(made[1])).cached


# ------------------------------------------------------------------------------ predictions
def test_a_skipped_prediction_counts_as_wrong(images, made):
    config, workspace = configuration(images, *SKIP, "train={method: near}"), made[1]
    make(workspace, config)
    here = (config, workspace)
    fitted = artefact(here, "train/depth-near").published()
    assert fitted.details["keys"] == [key("train", index) for index in (0, 1, 4, 6)]
    predicted = artefact(here, "predict/in_domain-depth-near")
    assert keys(predicted) == [key("in_domain", index) for index in (0, 1, 2, 3, 5)]
    assert predicted.published().skipped.keys() == {key("in_domain", 4)}
    (evaluation,) = [node for node in plan(config) if node.stage == "evaluate"]
    scores = evaluation.artefact(Workspace(workspace)).local_path()
    tables = {path.stem: ScoreTable.load(path).values.set_index("key") for path in scores.glob("*.parquet")}
    near = tables["in_domain-near"]
    assert list(near.index) == [key("in_domain", index) for index in (0, 2, 3, 4, 5)]
    assert near["delta1"][key("in_domain", 4)] == 0
    others = near["abs_rel"].drop(key("in_domain", 4))
    assert near["abs_rel"][key("in_domain", 4)] > 1000 * others.max()
    assert all(list(table.index) == list(near.index) for table in tables.values())


def test_your_own_images_are_predicted_except_the_broken_one(images, tmp_path, caplog):
    files = [images / "train" / f"{index}.png" for index in (4, 5, 6)]

    def predicted(bounds: str) -> list[str]:
        settings = ["sampling.num_steps=1", f"runtime.on_bad_sample={{{bounds}}}"]
        predictor = Predictor(find_targets("mini", None, settings, ["normal"]))
        found = predict_files(files, predictor, tmp_path / "out", overwrite=True)
        return [result.files["view"].name for result in found]

    with pytest.raises(InputError, match=r"5\.png: not a readable image"):
        predicted("policy: fail")
    assert not (tmp_path / "out").exists()
    assert predicted("policy: skip") == ["4.normal.view.png", "6.normal.view.png"]
    assert "5.png is skipped: not a readable image" in caplog.text
    with pytest.raises(InputError, match="dmp predict: 1 of 3 samples failed, the last 1 in a row"):
        predicted("policy: skip, in_a_row: 1")


def test_a_folder_is_imported_without_its_broken_file(images, tmp_path):
    folder, plain = images / "train", load_config("smoke")
    with pytest.raises(InputError, match=r"5\.png: not a readable image"):
        import_settings(plain, plain, folder)
    skipping = load_config("smoke", None, ["runtime.on_bad_sample.policy=skip"])
    settings, listings = import_settings(skipping, plain, folder)
    check_pixels(listings, settings.runtime)
    stored = store_settings(settings, str(tmp_path))
    make(tmp_path, settings, DATA)
    assert [sample["__key__"] for sample in samples(tmp_path / "datasets" / "train")] == [
        key("arbitrary", index) for index in (0, 1, 2, 3, 4, 6)
    ]
    known = {node.id: node.fingerprint for node in plan(load_config("mini", stored))}
    assert all(known[node.id] == node.fingerprint for node in plan(settings))


def test_an_image_whose_label_is_broken_goes_with_it(tmp_path):
    write_images(folder := tmp_path / "rooms", 3, {})
    for index in range(3):
        (folder / f"{index}.depth.npy").write_bytes(find_modality("depth").encode(room(index)["depth"]))
    (folder / "1.depth.npy").write_bytes(b"no array")
    listing = read_folder(folder, keeps_broken=True)
    assert check_folder(listing, BadSampleConfig(policy="skip")).keys() == {"1.png"}
    with pytest.raises(InputError, match=r"1\.depth\.npy: "):
        check_folder(listing)
    with pytest.raises(
        InputError, match=r"rooms: 1 of 3 samples failed, the last 1 in a row .* is 1\.png: 1\.depth\.npy"
    ):
        check_folder(listing, BadSampleConfig(policy="skip", in_a_row=1))


# ------------------------------------------------------------------------------ policy and bounds
def test_policy_fail_names_the_first(images, tmp_path):
    with pytest.raises(InputError, match=r"5\.png: not a readable image"):
        plan(configuration(images))
    (other := tmp_path / "other").mkdir()
    write_images(other / "train", 2, {1: RED})
    write_images(other / "in_domain", 2, {})
    config = configuration(other)
    for node in ("prompts/train", "images/train"):
        execute(config, node, str(tmp_path / "w"))
    with pytest.raises(InputError, match=r"train-00000001: .*NaN"):
        execute(config, "labels/train-depth", str(tmp_path / "w"))


def labelled(images: Path, workspace: Path, *settings: str, shards: list[int] | None = None) -> Artefact:
    config = configuration(images, *settings)
    for node in ("prompts/train", "images/train"):
        execute(config, node, str(workspace))
    execute(config, "labels/train-depth", str(workspace), shards=shards)
    return artefact((config, workspace), "labels/train-depth")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ("at_most: 0.2", "labels/train-depth: 2 of 6 samples failed, more than 1, .*at_most allows; .*train-00000003"),
        ("at_most: 0.5, in_a_row: 2", "the last 2 in a row .*in_a_row.*train-00000003: .*NaN"),
    ],
)
def test_above_a_bound_the_stage_stops_and_can_be_resumed(images, tmp_path, made, bounds, message):
    with pytest.raises(InputError, match=message):
        labelled(images, tmp_path, f"runtime.on_bad_sample={{policy: skip, {bounds}}}")
    partial = artefact((made[0], tmp_path), "labels/train-depth")
    assert [record.samples for record in sidecars(partial)] == [2]
    finished = labelled(images, tmp_path, *SKIP)
    assert files(Path(finished.path)) == files(Path(artefact(made, "labels/train-depth").path))


def test_shards_of_several_runs_keep_their_records_and_count_together(images, tmp_path, made):
    labels = labelled(images, tmp_path, *SKIP, shards=[3, 1])
    assert labels.status() == "partial"
    with pytest.raises(InputError, match=r"2 of 6 samples failed"):
        labelled(images, tmp_path, "runtime.on_bad_sample={policy: skip, at_most: 0.2}")
    whole = labelled(images, tmp_path, *SKIP)
    assert files(Path(whole.path)) == files(Path(artefact(made, "labels/train-depth").path))
    assert whole.published().skipped == artefact(made, "labels/train-depth").published().skipped


def test_errors_of_every_sample_are_not_skipped(images, tmp_path):
    with pytest.raises(InputError, match=r"^flat: no such weights"):
        labelled(images, tmp_path, *SKIP, "labels.depth.options={refuses: true}")


@pytest.mark.parametrize(("total", "at_most", "allowed"), [(1, 1.0, 0), (2, 0.0, 1), (100, 0.29, 29), (9, 1.0, 8)])
def test_at_least_one_may_fail_and_never_all(total: int, at_most: float, allowed: int):
    class Bounds:
        in_a_row = 1000

    Bounds.at_most = at_most  # type: ignore[attr-defined]
    count: Any = SkipCount("x", total, Bounds())  # type: ignore[arg-type]
    for index in range(allowed):
        count.bad(Skipped(str(index), "why"))
    with pytest.raises(InputError, match=f"x: {allowed + 1} of {total} samples failed.*the last is last: why"):
        count.bad(Skipped("last", "why"))


def test_the_tables_contain_the_remaining_samples(made):
    table = pd.read_parquet(artefact(made, "quality/train-depth").file("quality.parquet"))
    assert list(table["key"]) == [key("train", index) for index in (0, 1, 4, 6)]
