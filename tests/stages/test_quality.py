"""Gates, applied late: the samples that they drop from the merged dataset, from training and from the scores."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.labelers.registry import BUILT_IN
from dmp_core.labelers.settings import ModelLabels
from dmp_core.modalities import find_modality
from dmp_core.modalities.files import png_bytes
from dmp_core.progress import silent
from dmp_core.quality.tables import read_scores, score_reader
from dmp_core.report.dataset_record import UNKNOWN
from dmp_core.scoring.protocol import ScoreTable, constant_prediction, score
from dmp_core.stages import execute, find, plan
from dmp_core.stages.base import StageResult
from dmp_core.stages.execute import publish
from dmp_core.stages.quality import _Columns
from dmp_core.store import Artefact, Sample, Workspace, open_dataset, plan_shards, read_artefact, write_shards
from tests.constant_rows import score_constant
from tests.golden.fill import fill_module
from tests.making import make
from tests.report.rooms import prediction, room
from tests.training.tiny import TEXT_LENGTH, write_base, write_tokenizer

TASKS = ("normal", "depth")
COUNTS = {"train": 7, "in_domain": 5}
BLANK, LEAKED, COPIED, AWAY = (f"train-{index:08d}" for index in (2, 4, 5, 6))
FLAGGED = "in_domain-00000003"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "tiny")


def settings(base: Path, **quality: Any) -> PipelineConfig:
    values = load_config("smoke", None, ["adapters={}", f"base.model={base}"]).model_dump(mode="json")
    values["splits"] = {split: {"keywords": ["bedroom"], "count": count} for split, count in COUNTS.items()}
    values["quality"] = {"min_normal_z": 0.0, **quality}
    return validate(values | {"modalities": list(TASKS)}, "test")


def rooms(split: str) -> dict[str, dict[str, Any]]:
    """Key → room with labels; some of the training rooms are broken in one way each."""
    first = 100 if split == "train" else 0
    made = {f"{split}-{index:08d}": room(first + index) for index in range(COUNTS[split])}
    if split == "train":
        made[BLANK]["rgb"] = np.full((32, 32, 3), 90, np.uint8)
        made[LEAKED] = room(1)
        buffer = io.BytesIO()
        Image.fromarray(made[LEAKED]["rgb"]).save(buffer, "JPEG", quality=95)
        made[LEAKED]["rgb"] = np.asarray(Image.open(buffer))
        made[COPIED] = room(first) | {"rgb": np.clip(room(first)["rgb"].astype(int) + 4, 0, 255).astype(np.uint8)}
        made[AWAY]["normal"] = -made[AWAY]["normal"]
    return made


def store(config: PipelineConfig, workspace: Path, node_id: str, samples: Iterable[Sample], **details: Any) -> Artefact:
    """Publish these samples as the artefact of a node, two per shard."""
    node, rows = find(plan(config), node_id), list(samples)
    out = node.artefact(Workspace(workspace))
    by_key = {row["__key__"]: row for row in rows}
    files = write_shards(out, plan_shards(by_key, 2), lambda shard: [by_key[key] for key in shard.keys])
    publish(node, out, StageResult(len(rows), files, details), {}, 0.0)
    return out


def store_inputs(config: PipelineConfig, workspace: Path) -> None:
    """Images and labels of both splits, and predictions of the test split, as if their stages had run."""
    for split in COUNTS:
        made = rooms(split)
        about = {"keyword": "bedroom", "seed": 1}
        images = [
            {
                "__key__": key,
                "png": png_bytes(arrays["rgb"]),
                "json": json.dumps(
                    {"key": key, "prompt": f"room {key}", "safety": {"flagged": key == FLAGGED}, **about}
                ).encode(),
            }
            for key, arrays in made.items()
        ]
        store(config, workspace, f"images/{split}", images, keywords=["bedroom"], prompts=["test"])
        for task in TASKS:
            labels = [{"__key__": key, **encoded(task, arrays[task])} for key, arrays in made.items()]
            store(config, workspace, f"labels/{split}-{task}", labels)


def encoded(task: Any, array: Any) -> dict[str, bytes]:
    return {find_modality(task).member: find_modality(task).encode(array)}


@pytest.fixture(scope="module")
def scored(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineConfig, Path]:
    workspace = tmp_path_factory.mktemp("scored")
    config = settings(base)
    store_inputs(config, workspace)
    make(workspace, config, ["quality"])
    return config, workspace


def scores(config: PipelineConfig, workspace: Path, name: str) -> Any:
    artefact = find(plan(config), f"quality/{name}").artefact(Workspace(workspace))
    return read_scores(artefact).set_index("key")


# ---------------------------------------------------------------------------------------- scores
def test_duplicates_and_leaks_are_found(scored: tuple[PipelineConfig, Path]) -> None:
    table = scores(*scored, "train")
    assert table.loc[COPIED, "nearest"] == "train-00000000"
    assert table.loc[COPIED, "hash_distance"] <= 2
    assert table.loc[LEAKED, "test_nearest"] == "in_domain-00000001"
    assert table.loc[LEAKED, "test_distance"] <= 2
    assert set(table.index[table["test_distance"] <= 2]) == {LEAKED}
    assert table.loc[BLANK, "std"] == 0
    assert table.loc[BLANK, ["phash", "hash_distance", "test_distance"]].isna().all()
    tests = scores(*scored, "in_domain")
    assert tests.index[tests["flagged"].fillna(False)].tolist() == [FLAGGED]
    assert "test_distance" not in tests
    normals = scores(*scored, "train-normal")
    assert normals.index[normals["normal_z"] < 0].tolist() == [AWAY]
    assert (normals["unit"] == 1).all()


# -------------------------------------------------------------------------------- stale artefacts
def test_a_threshold_redoes_only_stages_that_apply_it(base: Path) -> None:
    before = {node.id: node.fingerprint for node in plan(settings(base))}

    def changed(**quality: Any) -> set[str]:
        after = {node.id: node.fingerprint for node in plan(settings(base, **quality))}
        assert set(after) == set(before)
        return {node for node in after if before[node] != after[node]}

    everywhere = changed(min_std=2.0)
    assert {node.split("/")[0] for node in everywhere} == {"shards", "train", "predict", "evaluate", "report"}
    assert not any("ceiling" in node for node in everywhere)
    # A gate of one task's labels leaves the other tasks alone.
    of_depth = changed(max_far=100.0)
    assert {"train/depth-dmp", "evaluate/depth", "shards/smoke/train"} <= of_depth
    assert not {"train/normal-dmp", "evaluate/normal"} & of_depth
    assert {node for node in changed(clip_model="some/model") if node.startswith("quality")} == {
        "quality/train",
        "quality/in_domain",
    }


def test_without_gates_training_and_scores_depend_on_no_quality_table(base: Path) -> None:
    off = {"min_normal_z": None, "min_std": None, "min_hash_distance": None, "min_test_distance": None}
    for node in plan(settings(base, drop_flagged=False, **off)):
        if node.stage in ("train", "evaluate"):
            assert not [role for role in node.inputs if role.startswith("quality")]
            assert "gates" not in node.config.model_dump(mode="json")


def test_switching_the_flip_check_off_is_as_if_there_were_none() -> None:
    plain = ModelLabels(kind="zoedepth", weights="x")
    assert "check_flip" not in plain.model_dump(mode="json")
    assert ModelLabels(kind="zoedepth", weights="x", check_flip=True).model_dump()["check_flip"] is True


# -------------------------------------------------------------------------------- dropped samples
def test_the_merged_dataset_has_gaps_and_states_why(scored: tuple[PipelineConfig, Path]) -> None:
    config, workspace = scored
    make(workspace, config, ["shards"])
    dataset = workspace / "datasets" / "smoke"
    samples = {sample["__key__"]: sample for sample in open_dataset(str(dataset / "train"))}
    assert list(samples) == [f"train-{index:08d}" for index in (0, 1, 3)]
    assert [sample["__key__"] for sample in open_dataset(str(dataset / "in_domain"))] == [
        f"in_domain-{index:08d}" for index in (0, 1, 2, 4)
    ]
    truth = rooms("train")
    for key, sample in samples.items():
        assert (np.asarray(sample["png"]) == truth[key]["rgb"]).all()
        np.testing.assert_allclose(sample["depth.npy"], truth[key]["depth"], rtol=1e-3)
    quality = samples["train-00000003"]["json"]["quality"]
    assert quality["depth"]["far"] > 0
    assert quality["shading"]["label_mean"] == UNKNOWN
    assert quality["image"]["std"] == pytest.approx(scores(config, workspace, "train")["std"]["train-00000003"])
    manifest = json.loads((dataset / "train" / "manifest.json").read_text())
    assert manifest["samples"] == 3
    assert manifest["details"]["dropped"] == {
        "min_std": 1,
        "min_hash_distance": 1,
        "min_test_distance": 1,
        "normal.min_normal_z": 1,
    }
    card = (dataset / "README.md").read_text()
    assert "`in_domain` 1 (drop_flagged 1); `train` 4 (" in card


def test_training_drops_samples_whose_image_or_own_label_fails(scored: tuple[PipelineConfig, Path]) -> None:
    config, workspace = scored
    make(workspace, config, ["latents", "train"])
    images = {}
    for task in TASKS:
        manifest = find(plan(config), f"train/{task}-dmp").artefact(Workspace(workspace)).published()
        images[task] = manifest.details["images"]
    assert images == {"normal": 3, "depth": 4}


def test_scores_are_those_of_the_kept_images_only(scored: tuple[PipelineConfig, Path]) -> None:
    config, workspace = scored
    for task in TASKS:
        guesses = {key: prediction(task, arrays[task], 3) for key, arrays in rooms("in_domain").items()}
        rows = [{"__key__": key, **encoded(task, guess)} for key, guess in guesses.items()]
        for row in ("dmp", "ceiling"):
            store(config, workspace, f"predict/in_domain-{task}-{row}", rows)
        execute(config, f"evaluate/{task}", str(workspace))
        out = find(plan(config), f"evaluate/{task}").artefact(Workspace(workspace)).local_path()

        keys = [f"in_domain-{index:08d}" for index in (0, 1, 2, 4)]
        pred, true = (
            np.stack([stored(task, arrays[key]) for key in keys])
            for arrays in (guesses, {key: arrays[task] for key, arrays in rooms("in_domain").items()})
        )
        used = ["train-00000000", "train-00000001", "train-00000003", *([AWAY] if task == "depth" else [])]
        constant = constant_prediction(task, [stored(task, rooms("train")[key][task]) for key in used])  # type: ignore[arg-type]
        for name, expected in (
            ("dmp", score(task, pred, true, keys)),  # type: ignore[arg-type]
            ("constant", score_constant(task, constant, true, keys)),  # type: ignore[arg-type]
        ):
            found = ScoreTable.load(out / f"in_domain-{name}.parquet").values
            assert found["key"].tolist() == keys
            np.testing.assert_allclose(found.drop(columns="key"), expected.values.drop(columns="key"), rtol=1e-6)


def stored(task: Any, array: Any) -> Any:
    return find_modality(task).decode(find_modality(task).encode(array))


def test_nothing_left_is_one_error_that_names_the_gates(scored: tuple[PipelineConfig, Path], base: Path) -> None:
    _, workspace = scored
    config = settings(base, min_std=127.0)
    for node in ("shards/smoke/train", "train/depth-dmp"):
        with pytest.raises(InputError, match=r"none of the 7 samples of split 'train' \(min_std 7\)"):
            execute(config, node, str(workspace))


# ------------------------------------------------------------------------------------ flip check
def test_flip_check_is_stored_next_to_the_label_and_becomes_a_score(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUILT_IN, "zoedepth", "tests.stages.sided:build")
    (tmp_path / "weights.pth").touch()
    labeler = {"kind": "zoedepth", "weights": str(tmp_path / "weights.pth"), "check_flip": True}
    values = settings(base).model_dump(mode="json")
    values |= {"labels": {**values["labels"], "depth": labeler}, "quality": {"max_flip_abs_rel": 0.1}}
    config = validate(values, "test")
    store_inputs(config, tmp_path)
    execute(config, "labels/in_domain-depth", str(tmp_path), force=True)
    ramp = np.linspace(1, 2, 32)
    expected = pytest.approx((np.abs(ramp[::-1] - ramp) / ramp).mean(), abs=1e-5)
    for sample in read_artefact(find(plan(config), "labels/in_domain-depth").artefact(Workspace(tmp_path))):
        assert set(sample) == {"__key__", find_modality("depth").member, "depth.flip.json"}
        assert json.loads(sample["depth.flip.json"]) == {"value": expected, "unit": "abs_rel"}
    make(tmp_path, config, ["quality"])
    found = scores(config, tmp_path, "in_domain-depth")["flip_abs_rel"]
    assert len(found) == 5
    assert all(value == expected for value in found)
    # One of the five fails an earlier gate.
    with pytest.raises(InputError, match=r"depth\.max_flip_abs_rel 4"):
        execute(config, "shards/smoke/in_domain", str(tmp_path))
    merged = validate(values | {"quality": {}}, "test")
    execute(merged, "shards/smoke/in_domain", str(tmp_path))
    for sample in open_dataset(str(tmp_path / "datasets" / "smoke" / "in_domain")):
        assert not [member for member in sample if "flip" in member]
        assert sample["json"]["quality"]["depth"]["flip_abs_rel"] == expected


# ------------------------------------------------------------------------------------------ CLIP
def test_clip_scores_are_the_cosines_of_images_and_prompts(base: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip")
    config = settings(base, clip_model=str(clip), min_clip_score=-1.0)
    store_inputs(config, tmp_path)
    execute(config, "quality/in_domain", str(tmp_path))
    found = scores(config, tmp_path, "in_domain")["clip_score"]

    import torch
    from transformers import CLIPModel, CLIPProcessor

    model: Any = CLIPModel.from_pretrained(clip)
    processor = CLIPProcessor.from_pretrained(clip)
    for key, arrays in rooms("in_domain").items():
        inputs = processor(text=[f"room {key}"], images=[arrays["rgb"]], return_tensors="pt", truncation=True)
        with torch.no_grad():
            image = model.visual_projection(model.vision_model(inputs["pixel_values"]).pooler_output)[0]
            text = model.text_projection(model.text_model(inputs["input_ids"]).pooler_output)[0]
        cosine = torch.nn.functional.cosine_similarity(image, text, dim=0)
        assert found[key] == pytest.approx(float(cosine), abs=2e-6)


def test_a_folder_without_a_clip_model_is_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = settings(base, clip_model=str(tmp_path / "empty"))
    store_inputs(config, tmp_path)
    with pytest.raises(InputError, match=r"quality\.clip_model: .*empty: not a CLIP model"):
        execute(config, "quality/in_domain", str(tmp_path))


def write_clip(folder: Path) -> Path:
    """A CLIP model of a few thousand parameters, random but always the same."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    size = write_tokenizer(folder / "raw")
    tokenizer = CLIPTokenizer(
        str(folder / "raw" / "vocab.json"), str(folder / "raw" / "merges.txt"), model_max_length=TEXT_LENGTH
    )
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": size, "max_position_embeddings": TEXT_LENGTH}
    text |= {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    vision = {**small, "image_size": 32, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    fill_module(model)
    model.save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def test_scores_are_read_for_a_shard_at_a_time():
    """One table lacks a sample that failed; missing scores are omitted, numbers are as JSON has them."""
    keys = [f"train-{index:08d}" for index in range(9, 14)]
    image = pd.DataFrame({"key": keys, "std": [1.23456789, None, 3.0, 4.0, 5.0]})
    image["flagged"] = pd.Series([None, True, None, None, False], dtype="boolean")
    depth = pd.DataFrame({"key": [keys[0], *keys[2:]], "classes": [1, 2, 3, 4]})
    read = score_reader({"image": image, "depth": depth})
    assert read(keys[0], keys[2]) == {
        keys[0]: {"image": {"std": 1.234568}, "depth": {"classes": 1}},
        keys[1]: {"image": {"flagged": True}},
        keys[2]: {"image": {"std": 3.0}, "depth": {"classes": 2}},
    }
    assert list(read(keys[4], keys[4])) == [keys[4]]
    assert read("train-00000100", "train-00000200") == {}


def test_columns_are_those_of_a_list_of_rows():
    """Also where a score is missing, or only some rows have it."""
    values = (None, 1, 2.5, True, "a", float("nan"))
    for own in itertools.product((*values, ...), repeat=2):
        rows = [{"key": "k", "x": 1.0}] + [{"key": "k"} | ({} if value is ... else {"v": value}) for value in own]
        columns = _Columns(len(rows), silent)
        for row in rows:
            columns.add(dict(row))
        pd.testing.assert_frame_equal(columns.table(), pd.DataFrame(rows))
