"""The dataset card: its header parses, and its code runs on a real shard."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.modalities.files import png_bytes
from dmp_core.report.data import ModelRecord
from dmp_core.report.dataset_card import DatasetCardInfo, card_from_manifests, dataset_card
from dmp_core.store.workspace import Manifest
from dmp_core.text import one_line
from tests.report.rooms import room
from tests.test_text import HOSTILE

INFO = DatasetCardInfo(
    name="bedrooms",
    splits={"train": 96, "in_domain": 32},
    keywords={"train": ["bedroom"], "in_domain": [f"room {i}" for i in range(9)]},
    resolution=(64, 48),
    generator="Mitsuba 3 rooms, 16 samples per pixel",
    prompts="SmolLM2-135M-Instruct",
    labelers={"normal": "exact, from the renderer"},
    palette="default",
    models=[ModelRecord("SmolLM2-135M-Instruct", "captions", "0.1", "", "Apache-2.0")],
    licence="cc0-1.0",
    fingerprints={"train": "3fa91b22c0de"},
)


def header(card: str) -> dict[str, object]:
    _, text, _ = card.split("---\n", 2) if card.startswith("---\n") else ("", "", "")
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def test_the_hub_can_read_the_header() -> None:
    head = header(dataset_card(INFO))
    assert head["license"] == "cc0-1.0"
    assert head["size_categories"] == ["n<1K"]
    assert head["task_categories"] == ["depth-estimation", "image-segmentation", "image-to-image"]
    assert head["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "train/*.tar"},
                {"split": "in_domain", "path": "in_domain/*.tar"},
            ],
        }
    ]


def test_the_card_states_units_axes_and_origin() -> None:
    card = dataset_card(INFO)
    for fact in (
        "x to the right, y up, z toward the viewer",
        "Metres along the optical axis",
        "48 × 64 pixels",
        "255 means no label",
        "7 bed",
        "3fa91b22c0de",
        "9 in all",
        "SmolLM2",
        "Apache-2.0",
        "palette `default`",
    ):
        assert fact in card, fact  # fmt: skip


def test_a_card_for_one_modality_omits_the_others() -> None:
    card = dataset_card(DatasetCardInfo("depths", {"train": 3}, modalities=[find_modality("depth")]))
    assert "seg.png" not in card
    assert "normal.png" not in card
    assert "## Where it comes from" not in card


def test_a_card_from_manifests() -> None:
    def manifest(split: str, samples: int) -> Manifest:
        return Manifest(
            stage="shards",
            stage_version=1,
            name=f"kitchens/{split}",
            fingerprint="abcdef012345",
            config={"dataset": "kitchens", "split": split, "shards": {"image_format": "jpg"}, "palette": "dmp2"},
            inputs={"images": "1", "normal": "2", "depth": "3"},
            files=[],
            samples=samples,
            seconds=1.0,
            created="",
            details={
                "keywords": ["kitchen"],
                "models": [{"name": "bloomz", "used_for": "captions"}],
                "dropped": {"min_std": 2, "normal.min_unit": 1} if split == "train" else {},
            },
        )

    card = card_from_manifests({"train": manifest("train", 24), "in_domain": manifest("in_domain", 8)})
    assert card.count("bloomz") == 1
    assert "so that keys have gaps: `train` 3 (min_std 2, normal.min_unit 1)." in card
    assert "# kitchens" in card
    assert "| `train` | 24 | kitchen | `abcdef012345` |" in card
    assert "{key}.jpg" in card
    assert "{key}.depth.npy" in card
    assert "seg.png" not in card


def write_shard(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        for index in range(2):
            arrays = room(index, 16)
            members = {"png": png_bytes(arrays["rgb"]), "json": b'{"prompt": "a bedroom"}'}
            members |= {m.member: m.encode(arrays[m.name]) for m in map(find_modality, BUILT_IN)}
            for extension, data in members.items():
                entry = tarfile.TarInfo(f"train-{index:08d}.{extension}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize("block", [0, 1], ids=["webdataset", "datasets"])
def test_the_cards_code_runs(block: int, tmp_path: Path) -> None:
    """The card's code runs unchanged in a process that cannot import this package."""
    write_shard(tmp_path / "train" / "shard-000000.tar")
    code = re.findall(r"```python\n(.*?)```", dataset_card(INFO), flags=re.DOTALL)[block]
    checks = [
        "\nassert depth.dtype == np.float16 and depth.shape == classes.shape == (16, 16)"
        "\nassert abs(np.linalg.norm(normal, axis=-1) - 1).max() < 0.02 and prompt == 'a bedroom'",
        "\nassert sample['normal.png'].size == (16, 16) and len(sample['depth.npy']) == 16",
    ]
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code + checks[block]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


# ---------------------------------------------------------------------------------- hostile text
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text: str) -> None:
    """Names of a dataset, its keywords and its models never break the card's header and tables."""
    info = replace(
        INFO, name=text, keywords={"train": [text, text]}, generator=text, prompts=text, palette=text,
        labelers={"normal": text}, models=[ModelRecord(text, text, text, "", text)],
    )  # fmt: skip
    card = dataset_card(info)
    assert header(card) == header(dataset_card(INFO)) | {"pretty_name": one_line(text)}
    body = card.split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    plain_tokens = (
        MarkdownIt("commonmark", {"html": True}).enable("table").parse(dataset_card(INFO).split("\n---\n", 1)[1])
    )
    assert [token.type for token in tokens] == [token.type for token in plain_tokens]
    inner = [child for token in tokens for child in token.children or []]
    assert not [child for child in inner if child.type in ("html_inline", "link_open", "image", "em_open")]
    assert all(line.isprintable() for line in card.splitlines())
