"""The rehearsal's configuration, and its walk in one process: pull from a mirror, run, tables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import ZoeDepthImageProcessor

from benchmarks import full_size, rehearsal
from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.experiments.settings import load_experiment
from dmp_core.progress import listening
from dmp_core.stages import find, plan
from dmp_core.store import Workspace
from dmp_core.weights import registry
from tests.labelers.test_zoedepth import HEADS, PROCESSOR, tiny
from tests.packages import installed_package
from tests.stages.test_device_memory import PACKAGE
from tests.weights.tiny_bases import write_kind

MODELS = ["stable-diffusion-v1-4", "zoedepth-nyu", "pienet", "bloomz-7b1"]


@pytest.mark.parametrize(("device", "dtype", "precision"), [("cpu", "bfloat16", "bf16"), ("cuda", "float16", "fp16")])
def test_it_is_the_paper_preset_with_its_own_models(device, dtype, precision):
    paper, config = load_config("paper"), rehearsal.rehearsal_config(device, steps=2, size=512)
    assert config.modalities == paper.modalities
    assert (config.sampling.dtype, config.train.mixed_precision) == (dtype, precision)
    assert (config.base, config.images.model) == (paper.base, paper.images.model)
    assert {task: (labels.kind, labels.weights) for task, labels in config.labels.items()} == {
        task: (labels.kind, labels.weights) for task, labels in paper.labels.items()
    }
    assert {node.stage for node in plan(config)} == {node.stage for node in plan(paper)}


def test_every_model_of_the_preset_is_built():
    from dmp_core.stages.preflight import models_of

    assert set(models_of(plan(load_config("paper")))[0]) == {*full_size.BUILDERS}


def test_methods_are_those_of_the_comparison_with_two_steps():
    config = rehearsal.rehearsal_config("cpu", steps=2, size=512)
    others = [other.train for other in rehearsal.method_configs(config)]
    compared = load_experiment("compare").variants.values()
    assert [train.method for train in others] == [
        variant.set["train"]["method"] for variant in compared if "method" in variant.set.get("train", {})
    ]
    assert all(train.fitted.draws <= 2 for train in others)
    visii = next(train for train in others if train.method == "visii")
    assert (visii.fit.clip_model, visii.fit.num_pairs) == ("openai/clip-vit-large-patch14", None)


# -------------------------------------------------------------------------------- the walk, tiny
@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mirror of tiny models: a language model, a base, a labeler in a folder, and one in a file that another
    package reads."""
    monkeypatch.setenv("DMP_MODELS_DIR", "")  # restored afterwards
    monkeypatch.setenv(registry.OWN, "")
    folder = tmp_path / "mirror"
    full_size.bloom(folder / "bloomz-7b1", width=64, layers=1)
    base = write_kind(tmp_path / "sd15", "sd15")
    shutil.rmtree(base / "raw_tokenizer")
    base.rename(folder / "stable-diffusion-v1-4")
    tiny(HEADS["nyu"]).save_pretrained(folder / "zoedepth-nyu")
    ZoeDepthImageProcessor(**PROCESSOR).save_pretrained(folder / "zoedepth-nyu")
    (folder / "pienet").mkdir()
    torch.save({"any": torch.zeros(2)}, folder / "pienet/real_world_model.t7")
    with installed_package(tmp_path, "tiny_intrinsics", PACKAGE, "[dmp.labelers]\ntiny = tiny_intrinsics:build\n"):
        yield folder


def write_registry(mirror: Path) -> Path:
    file = mirror.parent / "registry.yaml"
    full_size.write_registry(mirror, file)
    text = yaml.safe_load(file.read_text())
    text["models"] = [model | ({"network": None} if model["id"] == "pienet" else {}) for model in text["models"]]
    file.write_text(yaml.safe_dump(text))
    return file


def tiny_config() -> PipelineConfig:
    values = rehearsal.rehearsal_config("cpu", steps=1, size=64, images=1).model_dump(mode="json")
    values |= {"modalities": ["depth", "albedo"]}
    values["labels"] = {
        "depth": values["labels"]["depth"] | {"options": {"pad": True, "flip": True}},
        "albedo": {"kind": "tiny", "weights": "pienet"},
    }
    values["sampling"] |= {"num_steps": 1}
    values["evaluate"] |= {"sources": []}
    return validate(values, "tiny")


@pytest.mark.slow
@pytest.mark.e2e
def test_one_process_pulls_from_a_mirror_runs_and_writes_the_tables(mirror, tmp_path):
    write_registry(mirror)
    config, measuring = tiny_config(), rehearsal.Measuring(tmp_path, rehearsal.counted_gib)
    before = os.getpid()
    with listening(measuring):
        rehearsal.walk(config, tmp_path, MODELS)
    assert os.getpid() == before
    for name in MODELS:
        model = registry.get(name)
        assert model.registry == "rehearsal"
        assert not registry.check(model, full=True)
        assert (tmp_path / "models/rehearsal") in model.place().parents
    rows = [measuring.row(node, Workspace(tmp_path)) for node in plan(config)]
    described = {row.node: row.output for row in rows}
    assert "png 64×64×3 8 bit" in described["images/train"]
    assert "depth.npy 64×64 float16" in described["predict/in_domain-depth-dmp"]
    assert all(row.memory_gib > 0 for row in rows)
    counted = {row.node: row.gpu_gib or 0 for row in rows}
    assert 3 < counted["predict/in_domain-depth-dmp"] < counted["train/depth-dmp"] < 22
    (images,) = find(plan(config), "images/train").artefact(Workspace(tmp_path)).published().files
    assert images.batch == 32  # as many pixels as one image of 512
    assert f"| {rows[1].node} | {rows[1].output} |" in rehearsal.markdown([("tiny", 10**6, 2**30)], rows, config)
    for table in ("table1", "table3"):
        text = (tmp_path / f"experiments/compare/{table}.md").read_text()
        assert "DMP" in text


# ---------------------------------------------------------------------------------------- memory
def test_memory_is_counted_per_artefact_where_there_is_no_device(monkeypatch):
    monkeypatch.setattr(
        rehearsal,
        "counted_peaks",
        lambda: {"labels/normal": 1.0, "predict": 2.0, "predict (ceiling)": 3.0, "train": 4.0, "images": 5.0},
    )
    known = [
        "images/train", "labels/in_domain-normal", "predict/in_domain-normal-dmp", "predict/in_domain-normal-ceiling",
        "train/normal-dmp", "train/normal-spade", "report/bedrooms",
    ]  # fmt: skip
    assert [rehearsal.counted_gib(name) for name in known] == [5.0, 1.0, 2.0, 3.0, 4.0, None, None]


@pytest.mark.e2e
def test_memory_is_that_of_the_process_alone_and_since_the_reset():
    held = np.ones(2**27)  # 1 GiB
    assert rehearsal.peak_gib() > 1
    assert rehearsal.apart(rehearsal.peak_gib) < rehearsal.peak_gib() - 0.9, "the child reports its parent's memory"
    del held
    if os.access("/proc/self/clear_refs", os.W_OK):
        before = rehearsal.peak_gib()
        rehearsal.reset_peaks()
        assert rehearsal.peak_gib() < before - 0.9
