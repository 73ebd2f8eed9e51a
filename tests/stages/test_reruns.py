"""Reruns of single stages and shards, the artefacts they make stale, and datasets that grow by parts."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmp_core.config import PipelineConfig, load_config
from dmp_core.dataset.reading import read_prompts
from dmp_core.errors import InputError
from dmp_core.progress import listening
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import (
    StageOutput,
    batches,
    execute,
    find,
    plan,
    select,
    shard_numbers,
    shard_text,
    shards,
    statuses,
)
from dmp_core.stages.base import StageResult
from dmp_core.stages.execute import publish
from dmp_core.store import Workspace
from tests.making import DATA, make

TINY = [
    "modalities=[normal, depth]",
    "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}",
    "runtime.workers=1",
]


def request(workspace: Path, *keywords: str, count: int = 4, **options: str) -> PipelineConfig:
    settings = load_config("smoke", None, TINY)
    return dataset_config(settings, str(workspace), keywords, count, name="rooms", **options)


def files(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, PipelineConfig]:
    workspace = tmp_path_factory.mktemp("reruns")
    config = request(workspace, "bedroom")
    make(workspace, config)
    return workspace, config


# ----------------------------------------------------------------------------- choosing
def test_shard_numbers():
    assert shard_numbers("3-7,9, 3", "images") == [3, 4, 5, 6, 7, 9]
    assert shard_numbers(None, "train") is None
    for numbers, text in (([3, 4, 5, 9], "3-5,9"), ([7], "7"), ([0, 2, 3], "0,2-3"), ([], "")):
        assert shard_text(numbers) == text
        assert (shard_numbers(text, "images") or []) == numbers
    for text in ("7-3", "a", "1,,2", "-1"):
        with pytest.raises(InputError, match="--shards 3-7"):
            shard_numbers(text, "labels")
    with pytest.raises(InputError, match="makes no shards"):
        shard_numbers("0", "train")


def test_batches_follow_the_stages_and_keep_every_node_after_its_inputs():
    nodes = plan(load_config("mini", None, ["base.model=some/model", "adapters={}"]))
    found = list(batches(nodes))
    done: set[str] = set()
    for stage, batch in found:
        assert {node.stage for node in batch} == {stage}
        for node in batch:
            assert {source.id for source in node.inputs.values()} <= done
            done.add(node.id)
    assert len(found) == len({stage for stage, _ in found})
    assert done == {node.id for node in nodes}


# ------------------------------------------------------------------------------- shards
def test_one_shard_is_redone_alone_and_byte_identical(made):
    workspace, config = made
    node = find(plan(config), "images/train")
    folder = Path(node.artefact(Workspace(workspace)).path)
    before = files(folder)
    execute(config, "images/train", str(workspace), shards=[1])
    after = files(folder)
    assert {name for name in after if after[name][0] != before[name][0]} == {
        "shard-000001.tar", "shard-000001.json", "manifest.json",
    }  # fmt: skip
    assert all(after[name][2] == before[name][2] for name in after if name != "manifest.json")
    with pytest.raises(InputError, match="has shards 0 to 1 only"):
        execute(config, "images/train", str(workspace), shards=[2])
    assert set(statuses(plan(config), Workspace(workspace)).values()) == {"complete"}


def test_an_artefact_is_published_once_its_last_shard_is_there(tmp_path):
    config = request(tmp_path, "bedroom")
    for node in ("prompts/train", "images/train"):
        execute(config, node, str(tmp_path))

    def status() -> str:
        return statuses(plan(config), Workspace(tmp_path))["labels/train-depth"]

    execute(config, "labels/train-depth", str(tmp_path), shards=[1])
    assert status() == "partial"
    with pytest.raises(InputError, match="not made yet"):
        execute(config, "shards/rooms/train", str(tmp_path))
    execute(config, "labels/train-depth", str(tmp_path), shards=[0])
    assert status() == "complete"


# -------------------------------------------------------------------------------- stale
def test_another_labeler_makes_one_column_and_the_merge_stale(made):
    workspace, config = made
    labels = {**config.model_dump(mode="json")["labels"], "depth": {"kind": "zoedepth", "weights": "x"}}
    upgraded = PipelineConfig.model_validate(config.model_dump(mode="json") | {"labels": labels})
    found = statuses(plan(upgraded), Workspace(workspace))
    stale = {node for node, status in found.items() if status == "stale"}
    assert stale == {"labels/train-depth", "quality/train-depth", "shards/rooms/train"}
    assert set(found.values()) == {"stale", "complete"}


def test_forcing_an_artefact_with_the_same_result_makes_nothing_stale(made):
    workspace, config = made
    assert not execute(config, "labels/train-depth", str(workspace), force=True).cached
    assert set(statuses(plan(config), Workspace(workspace)).values()) == {"complete"}


def test_an_input_with_another_result_makes_its_dependents_stale(tmp_path):
    config = request(tmp_path, "bedroom")
    make(tmp_path, config)
    place, nodes = Workspace(tmp_path), plan(config)
    prompts = find(nodes, "prompts/train").artefact(place)
    table = read_prompts(prompts)
    table.loc[0, "prompt"] = "a red bedroom"
    prompts.write_bytes("prompts.parquet", table.to_parquet(index=False))
    publish(find(nodes, "prompts/train"), prompts, StageResult(samples=4), {}, 0.0)
    found = statuses(nodes, place)
    assert found.pop("prompts/train") == "complete"
    assert set(found.values()) == {"stale"}
    assert make(tmp_path, config) == list(found)
    assert set(statuses(nodes, place).values()) == {"complete"}


# -------------------------------------------------------------------------------- parts
def test_a_dataset_grows_without_changing_old_shards(made):
    workspace, first = made
    dataset = workspace / "datasets" / "rooms"
    before = files(dataset / "train")
    more = request(workspace, "kitchen", "bedroom", count=3)
    assert list(more.splits) == ["train-kitchen-bedroom"]
    assert len(make(workspace, more)) == 8
    assert files(dataset / "train") == before

    place = Workspace(workspace)
    old, new = (
        read_prompts(select(plan(config), "prompts")[0].artefact(place)).set_index("key")["prompt"]
        for config in (first, more)
    )
    assert list(new.index) == [f"train-kitchen-bedroom-{index:08d}" for index in range(3)]
    assert not set(old) & set(new)

    card = (dataset / "README.md").read_text()
    assert "train/*.tar\n    - train-kitchen-bedroom/*.tar" in card
    assert "7 synthetic images" in card

    again = request(workspace, "kitchen", "bedroom", count=3)
    assert again == more
    assert make(workspace, again) == []
    assert make(workspace, request(workspace, "bedroom")) == []


def test_an_edited_card_stays_and_any_other_is_renewed(tmp_path, caplog):
    card, config = tmp_path / "datasets" / "rooms" / "README.md", request(tmp_path, "bedroom", count=1)
    make(tmp_path, config)
    written = card.read_text()
    for damaged in ("", "\0" * 99):
        card.write_text(damaged)
        assert make(tmp_path, config) == []
        assert card.read_text() == written
    unsealed = written[: written.rindex("\n<!-- Written by dmp")]  # as earlier versions wrote it
    card.write_text(unsealed)
    assert make(tmp_path, config) == []
    assert card.read_text() == unsealed
    make(tmp_path, request(tmp_path, "attic", count=1))
    grown = card.read_text()
    assert "2 synthetic images" in grown
    make(tmp_path, request(tmp_path, "office", count=1))
    assert "3 synthetic images" in card.read_text()
    assert not caplog.records
    edited = card.read_text().replace("\n# ", "\nOurs, CC BY 4.0.\n\n# ", 1)
    card.write_text(edited)
    make(tmp_path, request(tmp_path, "cellar", count=1))
    assert card.read_text() == edited
    (warning,) = caplog.messages
    assert warning.startswith(f"{card}: was edited, so it is kept; `dmp dataset card")


def test_parts_are_named_by_keywords_or_by_hand(made):
    workspace, _ = made
    assert list(request(workspace, "jewelry shop").splits) == ["train-jewelry-shop"]
    assert list(request(workspace, "jewelry shop", part="Second try").splits) == ["train-second-try"]
    assert list(request(workspace, "jewelry shop", split="test").splits) == ["test"]
    assert request(workspace, "jewelry shop", split="test").splits["test"].exclude
    with pytest.raises(InputError, match="before the hyphen"):
        request(workspace, "jewelry shop", split="train-x")


def test_simultaneous_requests_get_their_own_folders(tmp_path):
    """None of them is finished when the next is planned."""
    asked = [("bedroom",), ("kitchen",), ("bedroom", "attic")]
    first = [next(iter(request(tmp_path, *words).splits)) for words in asked]
    assert first == ["train", "train-kitchen", "train-bedroom-attic"]
    again = [next(iter(request(tmp_path, *words).splits)) for words in reversed(asked)]
    assert again == first[::-1], "a resumed request gets its old folder"
    assert next(iter(request(tmp_path, "kitchen", count=5).splits)) == "train-kitchen-2"


def test_a_request_is_not_mistaken_for_a_part_with_a_given_name(tmp_path):
    """Both request the same words; the folder with the given name sorts first, and may be finished first."""
    plain, named = request(tmp_path, "bedroom"), request(tmp_path, "bedroom", part="A try")
    assert [*plain.splits, *named.splits] == ["train", "train-a-try"]
    assert request(tmp_path, "bedroom") == plain
    make(tmp_path, named)
    assert list(request(tmp_path, "bedroom").splits) == ["train"]
    assert list(request(tmp_path, "bedroom", part="A try").splits) == ["train-a-try"]


def test_a_rejected_request_reserves_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"splits\.train\.count"):
        request(tmp_path, "bedroom", count=0)
    assert list(request(tmp_path, "bedroom").splits) == ["train"]


def test_a_request_that_is_killed_while_it_is_recorded_stops_no_other(tmp_path, monkeypatch):
    def killed(temporary: Path, path: Path) -> None:
        (path.parent / f"{Path(temporary).name}.torn.tmp").write_bytes(b'{"key')  # left by a killed process
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            request(tmp_path, "kitchen")
    assert len(list((tmp_path / ".requests" / "rooms").iterdir())) == 1
    assert list(request(tmp_path, "bedroom").splits) == ["train"]


class Hears:
    """A listener that knows whether a stage waits for another run."""

    def __init__(self) -> None:
        self.waits = threading.Event()

    def started(self, name: str) -> None:
        pass

    def advanced(self, name: str, done: int, total: int, message: str) -> None:
        if message.startswith("waiting for"):
            self.waits.set()

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        pass


def test_two_configurations_fill_a_datasets_folder_one_after_the_other(tmp_path, monkeypatch):
    """Their fingerprints differ, and the folder is the same: the second would remove the first one's shards."""
    config = request(tmp_path, "bedroom")
    values = config.model_dump(mode="json")
    values["shards"]["image_format"] = "jpg"
    jpegs = PipelineConfig.model_validate(values)
    make(tmp_path, config, DATA[:-1])
    write, begun, go_on, other = shards.write_shards, threading.Event(), threading.Event(), Hears()

    def held(*arguments, **options):
        records = write(*arguments, **options)
        if not begun.is_set():
            begun.set()
            assert go_on.wait(60)
        return records

    def second() -> StageOutput:
        with listening(other):
            return execute(jpegs, "shards/rooms/train", str(tmp_path))

    monkeypatch.setattr(shards, "write_shards", held)
    folder = tmp_path / "datasets" / "rooms" / "train"
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(execute, config, "shards/rooms/train", str(tmp_path))
        assert begun.wait(60)
        before = files(folder)
        two = pool.submit(second)
        waited = other.waits.wait(10)
        untouched = files(folder) == before
        go_on.set()
        assert not one.result().cached
        assert not two.result().cached
    assert waited
    assert untouched
    assert find(plan(jpegs), "shards/rooms/train").artefact(Workspace(tmp_path)).verify() == []
