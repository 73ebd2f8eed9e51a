"""200 rendered rooms, exported in each format and read back equal, as the few of tests/export are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dmp_core.config import load_config
from dmp_core.stages import execute, plan
from dmp_core.store import open_dataset
from tests.export import test_export as formats

pytestmark = pytest.mark.e2e
COUNTS = {"train": 150, "in_domain": 50}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("workspace")
    splits = ", ".join(f"{split}: {{keywords: [bedroom], count: {count}}}" for split, count in COUNTS.items())
    settings = load_config("smoke", None, ["dataset=rooms", "shards.samples_per_shard=25", f"splits={{{splits}}}"])
    for node in plan(settings):
        wanted = node.stage != "shards" or node.name.rpartition("/")[2] in COUNTS
        if wanted and node.stage in ("prompts", "images", "labels", "quality", "shards"):
            execute(settings, node.id, str(workspace))
    return workspace / "datasets" / "rooms"


@pytest.fixture(scope="module")
def truth(rooms: Path) -> dict[str, dict[str, Any]]:
    return {split: {s["__key__"]: s for s in open_dataset(str(rooms / split))} for split in COUNTS}


@pytest.mark.parametrize(
    "check",
    [
        formats.test_voc,
        formats.test_coco,
        partial(formats.test_yolo, "middles"),
        formats.test_parquet,
        formats.test_imagefolder,
        formats.test_png16,
        formats.test_ply,
        partial(formats.test_croissant, "parquet"),
    ],
    ids=["voc", "coco", "yolo", "parquet", "imagefolder", "png16", "ply", "croissant"],
)
def test_format(check: Any, rooms: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert sum(map(len, truth.values())) > 150  # gates leave out near twins
    check(dataset=rooms, truth=truth, tmp_path=tmp_path)
