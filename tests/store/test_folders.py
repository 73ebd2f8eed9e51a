"""Names of folders are never patterns, on any file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmp_core.stages.registry import kind_of
from dmp_core.store import Workspace, open_dataset, plan_shards
from dmp_core.store.folders import exchange, files_below, mirror, names_in, open_place, remove
from tests.store.test_store import KEYS, produce, publish, write_shards

NAMES = [
    "w[1]",
    "w*",
    "w?",
    "w{1,2}",
    "w#1",
    "w%201",
    "w 1",
    "-w",
    "~w",
    "wé",
    "w::1",
    "file:w",
    "w'\"1",
    "w|1\n",
    "w=1",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_local_folder_may_have_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_place(name)[1] == str(tmp_path / name)
    assert open_place(tmp_path / name)[1] == str(tmp_path / name)
    assert open_place(f"file://{tmp_path / name}")[1] == str(tmp_path / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_place(f"~/{name}")[1] == str(tmp_path / name)


@pytest.mark.parametrize("kind", ["local", "memory"])
@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_is_not_its_neighbours(kind, name, tmp_path):
    """Each name, read as a pattern, is also the neighbour `w1`, or nothing at all."""
    if kind == "memory" and "::" in name:
        pytest.skip("a chain of URLs")
    root = str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}"
    place, other = Workspace(f"{root}/{name}"), Workspace(f"{root}/w1")
    for workspace, count in ((place, 4), (other, 7)):
        out = kind_of("images").artefact(workspace, name.replace("~", "t"), "0" * 12)
        publish(out, write_shards(out, plan_shards(KEYS[:count], 3), produce))
    out = kind_of("images").artefact(place, name.replace("~", "t"), "0" * 12)
    assert [sample["__key__"] for sample in open_dataset(out.address)] == KEYS[:4]
    assert kind_of("images").artefact(place, name.replace("~", "t"), "1" * 12).has_older()
    assert names_in(place.fs, out.path) == [
        "manifest.json", "shard-000000.json", "shard-000000.tar", "shard-000001.json", "shard-000001.tar",
    ]  # fmt: skip
    assert out.status() == "complete"
    assert out.verify() == []
    before = {path: other.fs.cat_file(path) for path in other.fs.find(other.root)}

    mirror(place.fs, out.path, f"{place.root}/report")
    assert files_below(place.fs, f"{place.root}/report") == files_below(place.fs, out.path)
    exchange(place.fs, f"{place.root}/report", out.path)
    assert out.verify() == []
    assert not place.fs.exists(f"{place.root}/report")
    remove(place.fs, out.path)
    assert not place.fs.exists(out.path)
    assert {path: other.fs.cat_file(path) for path in other.fs.find(other.root)} == before


def test_hidden_files_and_folders_are_no_part_of_a_dataset(tmp_path):
    out = kind_of("shards").artefact(Workspace(tmp_path), "rooms/train", "0" * 12)
    publish(out, write_shards(out, plan_shards(KEYS, 3), produce))
    mirror(out.workspace.fs, out.path, f"{tmp_path}/datasets/rooms/.train.0123456789ab")
    assert [sample["__key__"] for sample in open_dataset(str(tmp_path / "datasets/rooms"))] == KEYS


def test_a_failed_exchange_keeps_the_old_folder(tmp_path, monkeypatch):
    fs, root = open_place(tmp_path)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename = os.rename

    def refused(source, target):
        if source.endswith("new"):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OSError, match="cross-device"):
        exchange(fs, f"{root}/new", f"{root}/old")
    assert {path.parent.name: path.read_text() for path in tmp_path.rglob("file")} == {"old": "old", "new": "new"}
    monkeypatch.undo()
    exchange(fs, f"{root}/new", f"{root}/old")
    assert [path.relative_to(tmp_path).as_posix() for path in Path(tmp_path).rglob("*")] == ["old", "old/file"]
    assert (tmp_path / "old/file").read_text() == "new"
