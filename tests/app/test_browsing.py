"""What is browsed, filtered and marked, without a browser."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.app.browsing import NO_OVERLAY, Shelf, Walk, shown, status
from dmp_core.app.filters import IN_DATASET, LEFT_OUT, Filter, choices, chosen, number_or_none
from dmp_core.app.marks import Marks
from dmp_core.app.samples import Entry, find_collections, open_collection
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.modalities.files import npy_bytes, png_bytes
from dmp_core.quality.rejects import REJECTS_FILE
from dmp_core.store import Workspace, open_dataset
from tests.app.rooms import configuration, dataset_of, write_rooms
from tests.report.rooms import room

COUNT, BLANK, BROKEN, SPOILT = 9, 2, 4, 6
GATES = ("quality.min_std=5", "shards.samples_per_shard=4", "runtime.on_bad_sample={policy: skip, at_most: 0.5}")


def key(index: int) -> str:
    return f"train-{index:08d}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "train"
    write_rooms(folder, COUNT, blank=[BLANK], broken=[BROKEN], spoilt=[SPOILT])
    return folder


@pytest.fixture(scope="module")
def dataset(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(configuration(photos, *GATES), tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def shelf(dataset: Path) -> Shelf:
    return Shelf(open_collection(str(dataset)))


# ---------------------------------------------------------------------------------- collections
def test_every_sample_is_there_with_its_gate(shelf: Shelf) -> None:
    entries = shelf.collection.entries
    assert [entry.key for entry in entries] == [key(index) for index in range(COUNT)]
    assert {entry.key: entry.gate for entry in entries if entry.gate} == {key(BLANK): "min_std", key(BROKEN): "failed"}
    assert entries[BLANK].reason == "std 0, min 5"
    assert "not a readable image" in entries[BROKEN].reason
    assert (
        entries[SPOILT].scores["depth.far"]
        > 60
        > max(entry.scores["depth.far"] for entry in entries if entry.scores and entry.key != key(SPOILT))
    )


@pytest.mark.parametrize("index", [0, BLANK, 8])
def test_a_sample_shows_its_image_and_labels(shelf: Shelf, index: int) -> None:
    seen, truth = shelf.collection.show(shelf.collection.entries[index]), room(index)
    if index != BLANK:
        np.testing.assert_array_equal(seen.image, truth["rgb"])
    assert list(seen.maps) == list(BUILT_IN)
    normal = find_modality("normal")
    stored = normal.decode(normal.encode(truth["normal"].astype(np.float32)))
    np.testing.assert_array_equal(seen.maps["normal"], normal.colourise(stored))


def test_one_split_its_rejects_and_a_workspace_open_too(dataset: Path, shelf: Shelf) -> None:
    split = open_collection(f"{dataset}/train")
    assert split.entries == shelf.collection.entries
    assert split.rejects[1] == str(dataset)  # one file for all splits
    only = open_collection(f"{dataset}/train.rejects")
    assert [entry.key for entry in only.entries] == [key(BLANK), key(BROKEN)]
    assert only.rejects[1] == str(dataset)
    assert find_collections(None, str(dataset.parents[1])) == {"rooms": str(dataset)}
    assert find_collections(f"{dataset}/", None) == {"rooms": f"{dataset}/"}
    assert find_collections(None, None) == {}


def test_a_dataset_without_its_workspace_opens_with_a_notice(dataset: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    opened = open_collection(str(copy))
    assert len(opened.entries) == COUNT - 2
    assert "not shown" in opened.notice


def test_what_cannot_be_browsed_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished dataset here"):
        open_collection(str(tmp_path))
    with pytest.raises(InputError, match=r"--workspace .*: no finished dataset in it"):
        find_collections(None, str(tmp_path))


def test_predictions_are_browsed_with_their_images(photos: Path, tmp_path: Path) -> None:
    folder, depth = tmp_path / "predictions", find_modality("depth")
    folder.mkdir()
    for index in (0, 1):
        label = np.full((32, 32), 2.0 + index, np.float32)
        (folder / f"{index:04d}.depth.pred.npy").write_bytes(depth.encode(label))
        (folder / f"{index:04d}.depth.view.png").write_bytes(png_bytes(depth.colourise(label)))
        (folder / f"{index:04d}.depth.uncertainty.pred.npy").write_bytes(
            npy_bytes(np.full((32, 32), index, np.float16))
        )
        (folder / f"{index:04d}.depth.uncertainty.view.png").write_bytes(png_bytes(np.zeros((32, 32, 3), np.uint8)))
    alone, both = open_collection(str(folder)), open_collection(str(folder), photos)
    assert [entry.key for entry in alone.entries] == ["0000", "0001"]
    assert [entry.scores["depth.far"] for entry in alone.entries] == [2, 3]
    assert [entry.scores["depth.uncertainty"] for entry in alone.entries] == [0, 1]
    assert alone.show(alone.entries[0]).image is None
    seen = both.show(both.entries[1])
    np.testing.assert_array_equal(seen.image, np.asarray(Image.open(photos / "0001.png")))
    assert list(seen.maps) == ["depth uncertainty", "depth"]
    shelf = Shelf(alone)
    shelf.marks.toggle("0001")
    assert (folder / REJECTS_FILE).read_text() == "0001\n"


# -------------------------------------------------------------------------------------- filters
ENTRIES = [
    Entry("a-0", "a", "bedroom", "A red bed, by a window", {"std": 3.0}, place=1),
    Entry("a-1", "a", "kitchen", "A table in red", {"std": 1.0, "depth.far": 9.0}, "min_std", "std 1", place=1),
    Entry("b-0", "b", "bedroom", "Bedrooms are bored", {"std": 2.0}, "failed", "broken"),
]


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (Filter(), ["a-0", "a-1", "b-0"]),
        (Filter(split="b"), ["b-0"]),
        (Filter(keyword="bedroom"), ["a-0", "b-0"]),
        (Filter(word="RED"), ["a-0", "a-1"]),  # whole words: not `bored`
        (Filter(word=" red  bed "), ["a-0"]),
        (Filter(word="bed,"), ["a-0"]),
        (Filter(word="[a"), []),
        (Filter(gate=IN_DATASET), ["a-0"]),
        (Filter(gate=LEFT_OUT), ["a-1", "b-0"]),
        (Filter(gate="failed"), ["b-0"]),
        (Filter(score="std"), ["a-1", "b-0", "a-0"]),
        (Filter(score="std", highest_first=True), ["a-0", "b-0", "a-1"]),
        (Filter(score="depth.far", highest_first=True), ["a-1", "a-0", "b-0"]),  # those without it last
        (Filter(score="std", low=2.0), ["b-0", "a-0"]),
        (Filter(score="std", low=2.0, high=2.0), ["b-0"]),
        (Filter(score="depth.far", low=0.0), ["a-1"]),
        (Filter(low=100.0), ["a-0", "a-1", "b-0"]),  # bounds are of a score
        (Filter(only_marked=True), ["a-1"]),
    ],
)
def test_filters(by: Filter, keys: list[str]) -> None:
    assert [entry.key for entry in chosen(ENTRIES, by, {"a-1"})] == keys


def test_choices_are_what_there_is() -> None:
    found = choices(ENTRIES)
    assert (found.splits, found.keywords, found.scores) == (["a", "b"], ["bedroom", "kitchen"], ["depth.far", "std"])
    assert found.gates == ["all", IN_DATASET, LEFT_OUT, "failed", "min_std"]
    assert choices(ENTRIES[:1]).gates == ["all"]


def test_bounds_are_numbers_or_nothing() -> None:
    assert [number_or_none(text) for text in ("", " ", "0", "-1.5", "1e3")] == [None, None, 0, -1.5, 1000]
    for text in ("x", "nan", "1,5"):
        with pytest.raises(InputError, match="not a number"):
            number_or_none(text)


# ---------------------------------------------------------------------------------- walk and marks
def test_a_walk_stops_at_its_ends() -> None:
    walk = Walk(("a", "b", "c"))
    assert [walk.moved(by).key for by in (-1, 0, 1, 2, 9)] == ["a", "a", "b", "c", "c"]
    assert Walk().key is Walk().moved(1).key is None


def test_marks_are_on_the_disk_at_once_and_come_back(tmp_path: Path) -> None:
    marks = Marks(Workspace(tmp_path), str(tmp_path), ["a", "b", "c"])
    assert marks.keys() == frozenset()
    assert marks.toggle("b") is True
    assert (tmp_path / REJECTS_FILE).read_text() == "b\n"
    (tmp_path / REJECTS_FILE).write_text("# by hand\nc\nof another split\nb\n")  # while the page is open
    assert marks.toggle("a") is True
    assert Marks(Workspace(tmp_path), str(tmp_path), ["a", "b", "c"]).keys() == {"a", "b", "c"}
    assert marks.toggle("b") is False
    assert (tmp_path / REJECTS_FILE).read_text() == "# by hand\nc\nof another split\na\n"
    assert os.listdir(tmp_path) == [REJECTS_FILE]
    (tmp_path / REJECTS_FILE).write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"rejects.txt: not UTF-8 text"):
        marks.keys()


def test_the_status_says_where_and_why(shelf: Shelf) -> None:
    walk = shelf.chosen(Filter(gate=LEFT_OUT))
    assert "<b>1 of 2</b>" in status(shelf, walk)
    assert "left out by min_std: std 0, min 5" in status(shelf, walk)
    assert "std 0" in status(shelf, walk, "std")
    assert "No sample passes" in status(shelf, Walk())
    assert "It failed before" in shown(shelf, walk.moved(1), NO_OVERLAY, 0.5)
    assert shown(shelf, walk, "depth", 0.5).count("<figure>") == 2 + len(BUILT_IN)


def test_marks_are_a_gate_of_the_next_run(photos: Path, dataset: Path) -> None:
    marks = Shelf(open_collection(str(dataset))).marks
    marks.toggle(key(SPOILT))
    again = dataset_of(
        configuration(photos, *GATES, f"quality.rejects_file={dataset / REJECTS_FILE}"), dataset.parents[1]
    )
    assert again == dataset
    assert [sample["__key__"] for sample in open_dataset(str(dataset / "train"))] == [
        key(index) for index in range(COUNT) if index not in (BLANK, BROKEN, SPOILT)
    ]
    assert (dataset / REJECTS_FILE).read_text() == f"{key(SPOILT)}\n"  # the run left it there
    opened = Shelf(open_collection(str(dataset)))
    assert opened.entries[key(SPOILT)].gate == "rejects"
    assert opened.marks.keys() == {key(SPOILT)}
