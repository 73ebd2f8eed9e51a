"""Small files that a power cut or a bad disk damaged count as missing, with one notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import execute, plan, statuses
from dmp_core.stages.estimate import estimate_seconds
from dmp_core.stages.verify import repair, verify_workspace
from dmp_core.store import Artefact, FileRecord, Workspace, sidecars
from dmp_core.store.workspace import notice, read_manifest, split_manifests
from tests.making import make

TINY = ["modalities=[normal]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1"]
DAMAGE = {"empty": b"", "zeros": b"\0" * 40, "cut short": b'{"stage": "ima', "no text": b"\xff\xfe{}"}


def request(workspace: Path, *keywords: str, count: int = 4) -> PipelineConfig:
    return dataset_config(load_config("smoke", None, TINY), str(workspace), keywords, count, name="rooms")


def artefact(workspace: Path, config: PipelineConfig, node_id: str) -> Artefact:
    (node,) = [node for node in plan(config) if node.id == node_id]
    return node.artefact(Workspace(workspace))


def shards_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("shard-*")}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, PipelineConfig]:
    workspace = tmp_path_factory.mktemp("damage")
    config = request(workspace, "bedroom")
    make(workspace, config)
    return workspace, config


@pytest.fixture(autouse=True)
def unsaid() -> None:
    notice.cache_clear()


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_sidecar_costs_its_shard_alone(made, caplog, kind):
    workspace, config = made
    out = artefact(workspace, config, "labels/train-normal")
    path = Path(out.file("shard-000001.json"))
    right, before = path.read_bytes(), shards_of(Path(out.path))
    path.write_bytes(DAMAGE[kind])
    assert [record.name for record in sidecars(out)] == ["shard-000000.tar"]
    manifest = Path(out.file("manifest.json"))
    kept = manifest.read_bytes()
    manifest.unlink()  # as before publishing, so that the sidecars are read
    found = statuses(plan(config), Workspace(workspace))
    assert found["labels/train-normal"] == "partial"
    assert make(workspace, config) == ["labels/train-normal"]
    assert path.read_bytes() == right
    after = shards_of(Path(out.path))
    assert after["shard-000000.tar"] == before["shard-000000.tar"]
    assert after["shard-000001.tar"][0] == before["shard-000001.tar"][0]
    assert caplog.text.count(f"{path}: damaged") == 1
    manifest.write_bytes(kept)


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("node_id", ["images/train", "shards/rooms/train"])
def test_a_damaged_manifest_is_published_again_and_shards_stay(made, caplog, kind, node_id):
    workspace, config = made
    out = artefact(workspace, config, node_id)
    path, before = Path(out.file("manifest.json")), shards_of(Path(out.path))
    right = json.loads(path.read_bytes())
    path.write_bytes(DAMAGE[kind])
    nodes = plan(config)
    assert statuses(nodes, Workspace(workspace))[node_id] == "partial"
    assert [estimate_seconds(node, Workspace(workspace))[1] for node in nodes if node.id == node_id] == [0]
    with pytest.raises(InputError, match="not complete; run the stage"):
        out.published()
    assert make(workspace, config) == [node_id]
    assert shards_of(Path(out.path)) == before
    assert json.loads(path.read_bytes())["files"] == right["files"]
    assert caplog.text.count(f"{path}: damaged manifest") == 1
    assert set(statuses(nodes, Workspace(workspace)).values()) == {"complete"}


def test_repair_of_a_damaged_manifest_removes_it_alone(made):
    workspace, config = made
    out = artefact(workspace, config, "images/train")
    path, before = Path(out.file("manifest.json")), shards_of(Path(out.path))
    path.write_bytes(b"")
    found = [finding for finding in verify_workspace(Workspace(workspace)) if finding.kind == "damaged"]
    assert [(finding.path, finding.remove) for finding in found] == [(str(path), (str(path),))]
    assert repair(Workspace(workspace), found) == [str(path)]
    assert make(workspace, config) == ["images/train"]
    assert shards_of(Path(out.path)) == before


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b'{"stage": "images", "shards": 4}'])
def test_another_programs_manifest_is_an_error_with_the_fix(made, content):
    workspace, config = made
    path = Path(artefact(workspace, config, "labels/train-normal").file("manifest.json"))
    right = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(
            InputError, match=r"manifest\.json: not a manifest of this version .*; move it away"
        ) as raised:
            statuses(plan(config), Workspace(workspace))
        assert "\n" not in str(raised.value)
        with pytest.raises(InputError, match="not a manifest of this version"):
            execute(config, "labels/train-normal", str(workspace), force=True)
        assert path.read_bytes() == content
        path.unlink()
        assert make(workspace, config) == ["labels/train-normal"]
    finally:
        path.write_bytes(right)


def test_other_programs_files_elsewhere_stop_no_plan(made, caplog):
    workspace, _ = made
    for place in ("datasets/rooms/other", "adapters/mine"):
        (workspace / place).mkdir(parents=True)
        (workspace / place / "manifest.json").write_text('{"by": "another program"}')
    place = Workspace(workspace)
    assert list(split_manifests(place, f"{workspace}/datasets/rooms")) == ["train"]
    train = next(node for node in plan(load_config("smoke")) if node.stage == "train")
    assert estimate_seconds(train, place)[0] > 0
    assert caplog.text.count("not a manifest of this version") == 2


def test_a_damaged_manifest_does_not_hand_a_dataset_to_another_configuration(tmp_path):
    config = request(tmp_path, "bedroom", count=1)
    make(tmp_path, config)
    folder = tmp_path / "datasets" / "rooms" / "train"
    (folder / "manifest.json").write_bytes(b"")
    for note in (tmp_path / ".requests" / "rooms").iterdir():
        note.unlink()
    before = shards_of(folder)
    other = request(tmp_path, "attic", count=2)
    assert list(other.splits) == ["train"]
    with pytest.raises(InputError, match="damaged manifest next to shards of another configuration"):
        make(tmp_path, other)
    assert shards_of(folder) == before
    assert make(tmp_path, config) == ["shards/rooms/train"]


@pytest.mark.parametrize("kind", [*DAMAGE, "of another kind"])
def test_a_damaged_request_record_is_written_again(tmp_path, kind, caplog):
    first = request(tmp_path, "bedroom")
    note = tmp_path / ".requests" / "rooms" / "train.json"
    right = note.read_bytes()
    note.write_bytes(DAMAGE.get(kind, b"[1]"))
    assert request(tmp_path, "bedroom") == first
    assert note.read_bytes() == right
    assert f"{note}: damaged" in caplog.text
    note.write_text('{"keywords": ["bedroom"], "count": 4, "part": null}')  # as older versions wrote it
    assert request(tmp_path, "bedroom") == first


def test_records_without_threads_are_written_and_read_as_before():
    old = '{"name":"a","bytes":1,"sha256":"x","samples":0,"first_key":null,"last_key":null,"fingerprint":null}'
    assert FileRecord.model_validate_json(old).model_dump_json() == old
    assert FileRecord.model_validate_json(old.replace("}", ',"threads":2}')).threads == 2


def test_a_manifest_requested_by_path_is_named(tmp_path):
    (tmp_path / "manifest.json").touch()
    with pytest.raises(InputError, match=r"manifest\.json: damaged manifest \(empty\)"):
        read_manifest(Workspace(tmp_path), f"{tmp_path}/manifest.json")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError):
        read_manifest(Workspace(tmp_path), f"{tmp_path}/manifest.json")
