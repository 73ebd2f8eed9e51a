"""The merged dataset: every sample's json has the same schema, and `datasets` and `webdataset` open it unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dmp_core.config import load_config
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.presets import validate
from dmp_core.modalities import BUILT_IN, built_in, find_modality
from dmp_core.modalities.files import png_bytes
from dmp_core.report.dataset_record import RECORD, UNKNOWN
from dmp_core.stages import find, plan
from dmp_core.stages.base import StageResult
from dmp_core.stages.execute import publish
from dmp_core.store import Workspace, plan_shards, write_shards
from tests.making import make
from tests.report.rooms import room

RENDERED = {
    "generator": {"kind": "render", "resolution": 16, "samples_per_pixel": 2, "max_depth": 2},
    "scene": {"family": "bedroom", "style": None, "objects": [{"name": "floor", "colour": None}]},
}
DIFFUSED = {"generator": {"kind": "diffusion", "model": "some/model", "revision": None}}
FOLDER = {"generator": {"kind": "folder"}, "source": {"file": "a.png", "sha256": "0", "height": 6, "width": 8}}


def configuration(splits: dict[str, int], tasks: list[str], image_format: str = "png") -> PipelineConfig:
    values = load_config("smoke", None, ["adapters={}"]).model_dump(mode="json")
    values |= {
        "dataset": "rooms",
        "modalities": tasks,
        "quality": dict.fromkeys(("min_std", "min_hash_distance", "min_test_distance")),
    }
    values["shards"] = {"samples_per_shard": 2, "image_format": image_format}
    values["splits"] = {split: {"keywords": ["bedroom"], "count": count} for split, count in splits.items()}
    return validate(values, "test")


def build(config: PipelineConfig, workspace: Path, about: dict[str, Any], blank: int = 0) -> None:
    """The dataset's splits of this configuration, from images that need no renderer; the first few are blank."""
    for split, wanted in config.splits.items():
        keys = [f"{split}-{index:08d}" for index in range(wanted.count or 0)]
        rooms = {key: room(index, 16) for index, key in enumerate(keys)}
        for key in keys[:blank]:
            rooms[key]["rgb"] = np.full((16, 16, 3), 90, np.uint8)
            rooms[key]["depth"] = np.zeros((16, 16), np.float32)
        images = {}
        for key, arrays in rooms.items():
            record = {"key": key, "prompt": "", "keyword": "bedroom", "seed": 2**62, **about}
            images[key] = {"png": png_bytes(arrays["rgb"]), "json": json.dumps(record).encode()}
        store(config, workspace, f"images/{split}", images, keywords=["bedroom"], prompts=["test"])
        for task in config.modalities:
            labels = {
                key: {find_modality(task).member: find_modality(task).encode(arrays[task])}
                for key, arrays in rooms.items()
            }
            store(config, workspace, f"labels/{split}-{task}", labels)
    make(workspace, config, ["quality", "shards"])


def store(
    config: PipelineConfig, workspace: Path, node_id: str, samples: dict[str, dict[str, bytes]], **details: Any
) -> None:
    node = find(plan(config), node_id)
    out = node.artefact(Workspace(workspace))
    files = write_shards(
        out, plan_shards(samples, 2), lambda shard: [{"__key__": key, **samples[key]} for key in shard.keys]
    )
    publish(node, out, StageResult(len(samples), files, details), {}, 0.0)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose parts differ in generator, labels, image format and defined scores."""
    workspace = tmp_path_factory.mktemp("grown")
    build(configuration({"train": 7, "in_domain": 3}, ["normal", "depth"]), workspace, RENDERED, blank=6)
    build(configuration({"train-kitchen": 3}, ["normal"]), workspace, FOLDER | {"safety": {"flagged": False}})
    build(configuration({"train-hall": 2}, list(BUILT_IN), "jpg"), workspace, DIFFUSED | {"attempts": 2})
    return workspace / "datasets" / "rooms"


def kinds(value: Any) -> Any:
    """The entries of a json with the types of their values."""
    return {name: kinds(item) for name, item in value.items()} if isinstance(value, dict) else type(value)


def samples(dataset: Path) -> Iterator[dict[str, Any]]:
    import webdataset

    shards = sorted(str(path) for path in dataset.rglob("*.tar"))
    yield from webdataset.WebDataset([f"file:{path}" for path in shards], shardshuffle=False)


def test_every_json_has_the_same_entries_and_types_and_no_nulls(grown: Path) -> None:
    records = {sample["__key__"]: json.loads(sample["json"]) for sample in samples(grown)}
    assert len(records) == 15
    assert all(kinds(record) == kinds(RECORD) for record in records.values())
    blank, whole = records["train-00000000"], records["train-00000006"]
    assert blank["quality"]["image"]["phash"] == ""
    assert blank["quality"]["depth"]["far"] == blank["quality"]["image"]["hash_distance"] == UNKNOWN
    assert whole["quality"]["depth"]["far"] > 0
    assert whole["quality"]["image"]["phash"]
    assert whole["seed"] == 2**62
    assert json.loads(whole["scene"]) == {"family": "bedroom", "objects": [{"name": "floor"}]}
    assert json.loads(whole["generator"]["settings"]) == RENDERED["generator"]
    assert whole["labels"]["depth"].startswith("float16")
    assert whole["labels"]["shading"] == ""
    imported, diffused = records["train-kitchen-00000000"], records["train-hall-00000000"]
    assert imported["source"] == FOLDER["source"]
    assert imported["safety"] == {"checked": True, "flagged": False}
    assert whole["safety"] == {"checked": False, "flagged": False}
    assert json.loads(diffused["other"]) == {"attempts": 2}
    assert diffused["generator"]["kind"] == "diffusion"


OPEN = """
import sys, json
from datasets import load_dataset

folder, cache, streaming = sys.argv[1], sys.argv[2], sys.argv[3] == "streaming"
loaded = load_dataset(folder, cache_dir=cache, streaming=streaming)
rows = {split: [dict(row) for row in data] for split, data in loaded.items()}
print(json.dumps({
    split: [{name: None if value is None else value if name in ("json", "__key__", "depth.npy") else value.size
             for name, value in row.items() if name != "__url__"} for row in found]
    for split, found in rows.items()
}, default=lambda array: array.tolist()))
"""


def opened(dataset: Path, cache: Path, way: str) -> dict[str, list[dict[str, Any]]]:
    """Result of `load_dataset(folder)`, in a process that cannot import this package."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(dataset), str(cache), way],
        cwd=cache,
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["plain", "streaming"])
def test_a_grown_dataset_opens_by_its_folder(grown: Path, tmp_path: Path, way: str) -> None:
    rows = opened(grown, tmp_path, way)
    assert {split: len(found) for split, found in rows.items()} == {"train": 12, "in_domain": 3}
    train = {row["__key__"]: row for row in rows["train"]}
    first, last = train["train-00000000"], train["train-00000006"]
    kitchen, hall = train["train-kitchen-00000000"], train["train-hall-00000000"]
    assert last["depth.npy"] == room(6, 16)["depth"].astype(np.float16).tolist()
    assert last["normal.png"] == first["png"] == kitchen["png"] == hall["jpg"] == hall["seg.png"] == [16, 16]
    assert kitchen["depth.npy"] is None
    assert last["seg.png"] is None
    assert hall["png"] is None
    assert len(hall["depth.npy"]) == 16
    for row in [*rows["train"], *rows["in_domain"]]:
        assert kinds(row["json"]) == kinds(RECORD)
    assert last["json"]["quality"]["depth"]["far"] == pytest.approx(float(room(6, 16)["depth"].max()), rel=1e-3)


def test_one_split_opens_without_the_card(grown: Path, tmp_path: Path) -> None:
    """Types are then taken from the first five samples, which here fail the scores."""
    (copy := tmp_path / "plain").mkdir()
    for path in (grown / "train").glob("*.tar"):
        (copy / path.name).write_bytes(path.read_bytes())
    (rows,) = opened(copy, tmp_path, "plain").values()
    assert len(rows) == 7
    assert rows[6]["json"]["quality"]["image"]["phash"]


def test_the_cards_columns_are_those_of_the_shards(grown: Path) -> None:
    header = yaml.safe_load((grown / "README.md").read_text().split("---\n")[1])
    named = {column["name"] for column in header["dataset_info"]["features"]}
    assert named == {name for sample in samples(grown) for name in sample if name != "__local_path__"}


def test_the_schema_lists_every_score() -> None:
    from dmp_core.quality import image_scores, label_scores
    from dmp_core.quality.gates import IMAGE, IMAGE_GATES

    arrays = room(0, 16)
    assert set(image_scores(arrays["rgb"])) <= set(RECORD["quality"]["image"])
    for task in BUILT_IN:
        assert set(label_scores(task, arrays[task])) <= set(RECORD["quality"][task])
    gates_of = {IMAGE: IMAGE_GATES} | {one.name: (*one.gates, one.flip_gate) for one in built_in()}
    gated = {table: {gate.partition("_")[2] for gate in gates} - {"flagged"} for table, gates in gates_of.items()}
    assert all(gated[table] <= set(RECORD["quality"][table]) for table in gated)
