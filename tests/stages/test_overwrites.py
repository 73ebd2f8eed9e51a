"""No column and no sample of a finished dataset is overwritten: by settings, requests or imports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.experiments.planning import plan_experiment
from dmp_core.experiments.settings import load_experiment
from dmp_core.overrides import merge
from dmp_core.requests.imports import check_name, import_settings, store_settings
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import check_overwrites, execute, find, plan
from dmp_core.store import Workspace, open_dataset
from tests.making import make

TINY = [
    "modalities=[normal, depth]",
    "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}",
    "runtime.workers=1",
]


def request(workspace: Path, *keywords: str, count: int = 2, **options: Any) -> PipelineConfig:
    options = {"name": "rooms"} | options
    return dataset_config(load_config("smoke", None, TINY), str(workspace), keywords, count, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(config: PipelineConfig, change: dict[str, Any]) -> PipelineConfig:
    return PipelineConfig.model_validate(merge(config.model_dump(mode="json"), change))


# ----------------------------------------------------------------------------- settings
@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, PipelineConfig]:
    workspace = tmp_path_factory.mktemp("overwrites")
    config = request(workspace, "bedroom", "kitchen")
    make(workspace, config)
    return workspace, config


LOSSES = [
    ({"modalities": ["normal"]}, "labels of depth"),
    ({"splits": {"train": {"count": 1}}}, "2 samples .requested now: 1"),
    ({"splits": {"train": {"keywords": ["bedroom"]}}}, "2 samples of kitchen"),
    ({"splits": {"train": {"keywords": ["attic"], "count": 9}}}, "2 samples of bedroom, kitchen"),
    ({"seed": 1}, "2 samples of seed 0"),
]


@pytest.mark.parametrize(("change", "held"), LOSSES)
def test_changes_that_would_lose_data_are_rejected(made, change, held):
    workspace, config = made
    other, before = changed(config, change), files(workspace)
    with pytest.raises(InputError, match=rf"datasets/rooms/train: holds {held}.*--set dataset=NAME"):
        check_overwrites(plan(other), Workspace(workspace))
    with pytest.raises(InputError, match="--set dataset=NAME"):
        execute(other, "shards/rooms/train", str(workspace))
    assert files(workspace) == before
    check_overwrites(plan(changed(other, {"dataset": "others"})), Workspace(workspace))


UPDATES = [
    {},
    {"modalities": ["normal", "depth", "segmentation"]},
    {"labels": {"depth": {"kind": "zoedepth", "weights": "x"}}},
    {"splits": {"train": {"count": 5, "keywords": ["bedroom", "kitchen", "attic"]}}},
    {"shards": {"image_format": "jpg"}},
    {"images": {"resolution": 32}},
    {"quality": {"min_std": 5.0}},
]


@pytest.mark.parametrize("change", UPDATES)
def test_changes_of_how_it_is_made_are_an_update(made, change):
    workspace, config = made
    check_overwrites(plan(changed(config, change)), Workspace(workspace))


def test_an_experiment_with_fewer_tasks_leaves_the_dataset_alone(made):
    workspace, config = made
    values = config.model_dump(mode="json")
    values["splits"] |= {"in_domain": {"keywords": ["bedroom"], "count": 1}}
    planned = plan_experiment(load_experiment("compare"), PipelineConfig.model_validate(values), modalities=["normal"])
    for variant in planned:
        check_overwrites(variant.nodes, Workspace(workspace))


def test_the_command_line_refuses_before_any_work(made, tmp_path):
    workspace, config = made
    file, before = tmp_path / "own.yaml", files(workspace)
    stored = store_settings(config, str(tmp_path / "w"))
    shutil.copy(stored, file)
    for command in ("plan", "run"):
        done = CliRunner().invoke(app, [command, "-c", str(file), "-w", str(workspace), "--set", "modalities=[normal]"])
        assert isinstance(done.exception, InputError), done.output
        assert "--set dataset=NAME" in str(done.exception)
    assert files(workspace) == before


# -------------------------------------------------------------------------------- parts
def test_a_part_keeps_its_keywords_and_its_name(made, tmp_path):
    workspace, _ = made
    make(workspace, request(workspace, "attic", part="extra"))
    before = files(workspace)
    assert list(request(workspace, "attic", part="extra").splits) == ["train-extra"]
    for words, count, part in [("pantry", 2, "extra"), ("attic", 3, "extra"), ("attic", 2, "Extra!")]:
        both = rf"--part {part}: .*train-extra .*'extra' with 2 of attic; now: part '{part}' with {count} of {words}"
        with pytest.raises(InputError, match=both):
            request(workspace, words, count=count, part=part)
    assert files(workspace) == before
    for part in ("\u00e9xtra", "e\u0301xtra"):
        assert list(request(tmp_path, "x", part=part).splits) == ["train-\u00e9xtra"]


def test_a_part_named_like_anothers_keywords_is_refused(made):
    workspace, _ = made
    assert list(request(workspace, "wine cellar").splits) == ["train-wine-cellar"]
    with pytest.raises(InputError, match=r"2 of wine cellar; now: part 'Wine cellar' with 2 of pantry"):
        request(workspace, "pantry", part="Wine cellar")
    assert list(request(workspace, "Wine-cellar!").splits) == ["train-wine-cellar-2"]


def test_a_part_of_an_older_version_has_no_note(tmp_path):
    make(tmp_path, request(tmp_path, "attic", part="extra"))
    shutil.rmtree(tmp_path / ".requests")
    with pytest.raises(InputError, match="2 of attic; now: part 'extra' with 2 of pantry"):
        request(tmp_path, "pantry", part="extra")
    assert list(request(tmp_path, "attic", part="extra").splits) == ["train-extra"]


def test_names_that_look_the_same_are_the_same(tmp_path):
    names = [request(tmp_path, "attic", name=name).dataset for name in ("caf\u00e9", "cafe\u0301")]
    assert names[0] == names[1]
    assert request(tmp_path, "cafe\u0301", name=None).dataset == request(tmp_path, "caf\u00e9", name=None).dataset


# ------------------------------------------------------------------------------ imports
def photos(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seed = sum(map(ord, name))
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def bring(workspace: Path, folder: Path, *, finish: bool = True, **options: Any) -> PipelineConfig:
    """The same as `dmp dataset import --only-dataset`."""
    base = load_config("smoke", None, TINY)
    settings, listings = import_settings(base, load_config("smoke"), folder, **options)
    check_name(settings, listings, folder, str(workspace))
    check_overwrites(plan(settings), Workspace(workspace))
    store_settings(settings, str(workspace))
    if finish:
        make(workspace, settings)
    return settings


def keys(workspace: Path, name: str) -> int:
    return len(list(open_dataset(str(workspace / "datasets" / name))))


@pytest.mark.parametrize("finish", [True, False])
def test_another_folder_needs_another_name(tmp_path, finish):
    one, two = photos(tmp_path / "a/My photos", "x", "y"), photos(tmp_path / "b/my_photos", "z")
    bring(tmp_path / "w", one, finish=finish)
    before = files(tmp_path / "w")
    for options in ({}, {"split": "in_domain"}, {"name": "my-photos", "split": "train"}):
        with pytest.raises(InputError, match=r"my-photos.*another --name"):
            bring(tmp_path / "w", two, **options)
    assert files(tmp_path / "w") == before
    bring(tmp_path / "w", two, name="others")
    bring(tmp_path / "w", one)
    assert (keys(tmp_path / "w", "my-photos"), keys(tmp_path / "w", "others")) == (2, 1)


@pytest.mark.slow
def test_the_same_folder_may_have_grown_or_moved(tmp_path):
    folder = photos(tmp_path / "a/photos", "x", "y")
    bring(tmp_path / "w", folder)
    bring(tmp_path / "w", photos(folder, "z"))
    assert keys(tmp_path / "w", "photos") == 3
    (folder / "x.png").unlink()
    bring(tmp_path / "w", folder)
    assert keys(tmp_path / "w", "photos") == 2
    bring(tmp_path / "w", folder, hold_out=0.5)
    (tmp_path / "b").mkdir()
    moved = folder.rename(tmp_path / "b/photos")
    for split in ("train", "in_domain"):
        shutil.rmtree(tmp_path / "w/datasets/photos" / split)
    bring(tmp_path / "w", moved)
    bring(tmp_path / "w", photos(moved, "q"))  # moved, the same, then grown
    assert keys(tmp_path / "w", "photos") == 3
    moved.rename(tmp_path / "photos")
    with pytest.raises(InputError, match="images of another folder"):  # moved and grown at the same time
        bring(tmp_path / "w", photos(tmp_path / "photos", "r"))


def test_a_folder_in_an_older_workspace_is_known_by_its_configuration(tmp_path, monkeypatch):
    from dmp_core.stages import prompts
    from dmp_core.stages.base import StageResult

    monkeypatch.setattr(prompts, "StageResult", lambda samples, details: StageResult(samples=samples))
    folder = photos(tmp_path / "photos", "x")
    bring(tmp_path / "w", folder)
    monkeypatch.undo()
    bring(tmp_path / "w", photos(folder, "y"))
    assert keys(tmp_path / "w", "photos") == 2


def test_imported_and_generated_images_do_not_replace_each_other(made, tmp_path):
    workspace, config = made
    folder = photos(tmp_path / "photos", "x")
    with pytest.raises(InputError, match="train holds generated images; give another --name"):
        bring(workspace, folder, name="rooms", split="arbitrary")
    request(tmp_path / "w", "attic")  # requested, not made yet
    with pytest.raises(InputError, match=r"dmp dataset new.*another --name"):
        bring(tmp_path / "w", folder, name="rooms")
    for finish in (False, True):
        bring(tmp_path / "w", folder, finish=finish)
        with pytest.raises(InputError, match=r"'photos': holds images that were imported .* another --name"):
            request(tmp_path / "w", "attic", name="photos")

    values = config.model_dump(mode="json") | {"dataset": "photos"}
    values["splits"] = {"arbitrary": {"keywords": ["bedroom"], "count": 1}}
    with pytest.raises(InputError, match="holds 1 sample of a folder"):
        check_overwrites(plan(PipelineConfig.model_validate(values)), Workspace(tmp_path / "w"))
    values["splits"] = {"train": {"folder": str(folder)}}
    with pytest.raises(InputError, match="holds labels of normal, depth, which"):
        check_overwrites(plan(PipelineConfig.model_validate(values | {"dataset": "rooms"})), Workspace(workspace))


def test_a_file_that_the_user_keeps_there_is_not_overwritten(tmp_path):
    (tmp_path / "w/datasets/folder.yaml").mkdir(parents=True)
    (tmp_path / "w/datasets/photos.yaml").write_text("mine: true\n")
    for name in ("photos", "folder"):
        with pytest.raises(InputError, match=rf"{name}\.yaml: not a configuration of .* --name NAME"):
            bring(tmp_path / "w", photos(tmp_path / "x", "x"), name=name)
    assert (tmp_path / "w/datasets/photos.yaml").read_text() == "mine: true\n"
    settings = bring(tmp_path / "w", photos(tmp_path / "photos[1]", "x"))
    assert find(plan(settings), "shards/photos-1/arbitrary")
