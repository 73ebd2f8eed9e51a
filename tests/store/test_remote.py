"""Artefacts in object stores: their addresses for other processes, and fetching."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dmp_core.stages import StageOutput
from dmp_core.stages.registry import kind_of
from dmp_core.store import Artefact, FileRecord, Manifest, Workspace, record_files, staged_folder
from flows import visible
from tasks import worth_retrying


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Workspace(f"memory://{tmp_path.name}")


def publish(place: Workspace, name: str, files: dict[str, bytes], stage: str = "train") -> Artefact:
    out = kind_of(stage).artefact(place, name, "0" * 12)
    for file, data in files.items():
        out.write_bytes(file, data)
    describe(out, record_files(out))
    return out


def describe(out: Artefact, files: list[FileRecord]) -> None:
    manifest = Manifest(
        stage=out.stage, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={}, files=files,
        samples=1, seconds=0.0, created=datetime.now(UTC).isoformat(),
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())


def contents(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != "manifest.json"}


def test_a_fetched_copy_equals_the_artefact_and_is_fetched_once(place):
    out = publish(place, "depth", {"a.bin": b"1", "below/b.bin": b"2"})
    found = out.local_path()
    assert contents(found) == {"a.bin": b"1", "below/b.bin": b"2"}
    (found / "a.bin").write_bytes(b"kept")
    assert contents(out.local_path())["a.bin"] == b"kept"


def test_another_content_or_place_is_another_copy(place):
    one = publish(place, "depth", {"a.bin": b"1"}).local_path()
    made_anew = publish(place, "depth", {"a.bin": b"2"}).local_path()
    elsewhere = publish(Workspace(f"{place.url}-other"), "depth", {"a.bin": b"3"}).local_path()
    assert [contents(folder)["a.bin"] for folder in (one, made_anew, elsewhere)] == [b"1", b"2", b"3"]


def test_a_download_that_broke_off_is_begun_again(place, monkeypatch):
    out = publish(place, "depth", {"a.bin": b"1", "b.bin": b"2"})
    get = type(place.fs).get

    def broken(self, source, target, **options):
        Path(target[0]).write_bytes(b"1")
        raise ConnectionError("cut")

    monkeypatch.setattr(type(place.fs), "get", broken)
    with pytest.raises(ConnectionError):
        out.local_path()
    monkeypatch.setattr(type(place.fs), "get", get)
    assert contents(out.local_path()) == {"a.bin": b"1", "b.bin": b"2"}


def test_a_copy_that_changes_while_it_is_fetched_is_not_kept(place, monkeypatch):
    """Weights that were made again have the same size, so the bytes are compared."""
    out = publish(place, "depth", {"a.bin": b"1", "b.bin": b"2"})
    get = type(place.fs).get

    def late(self, source, target, **options):
        get(self, source, target, **options)
        Path(target[0]).write_bytes(b"3")

    monkeypatch.setattr(type(place.fs), "get", late)
    with pytest.raises(OSError, match=r"memory://.*/adapters/depth-0+: a\.bin differs from the manifest") as caught:
        out.local_path()
    assert worth_retrying(caught.value)
    monkeypatch.setattr(type(place.fs), "get", get)
    assert contents(out.local_path()) == {"a.bin": b"1", "b.bin": b"2"}
    assert [path.name for path in out.local_path().parent.iterdir()] == [out.local_path().name], "nothing is left over"


def test_two_simultaneous_fetches_leave_one_copy(place, monkeypatch):
    out = publish(place, "depth", {"a.bin": b"1"})
    get = type(place.fs).get

    def slow(self, source, target, **options):
        monkeypatch.setattr(type(place.fs), "get", get)
        out.local_path()
        get(self, source, target, **options)

    monkeypatch.setattr(type(place.fs), "get", slow)
    found = out.local_path()
    assert contents(found) == {"a.bin": b"1"}
    assert list(found.parent.iterdir()) == [found]


def test_a_copy_that_cannot_be_put_in_place_is_an_error(place, monkeypatch):
    out = publish(place, "depth", {"a.bin": b"1"})

    def refused(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="No space left"):
        out.local_path()


def test_a_fetched_copy_is_not_published_when_the_artefact_is_made_again(place):
    out = publish(place, "depth", {"a.bin": b"1"})
    out.local_path()
    with staged_folder(out) as folder:
        (folder / "a.bin").write_bytes(b"2")
    assert [record.name for record in record_files(out)] == ["a.bin"]


def test_an_address_can_be_opened_by_others(place, tmp_path):
    out = publish(place, "depth", {"a.bin": b"1"})
    there = Workspace(out.address)
    assert there.fs.cat_file(f"{there.root}/a.bin") == b"1"
    assert kind_of("train").artefact(Workspace(tmp_path), "x", "0" * 12).address == f"{tmp_path}/adapters/x-{'0' * 12}"


@pytest.mark.parametrize("named", ["address", "path"])
def test_scores_of_a_remote_report_are_shown(place, monkeypatch, named):
    out = publish(place, "rooms", {"metrics.json": b'{"metrics": {}}'}, stage="report")
    shown: list[str] = []
    monkeypatch.setattr(visible, "create_markdown_artifact", lambda text, *_: shown.append(text))
    made = StageOutput("report/rooms", getattr(out, named), out.fingerprint, False, 1, 0.0)
    visible.show_report([made], "rooms", place.url)
    assert f"`{out.address}/index.html`" in shown[0]
    assert out.address.startswith("memory://")


def test_tables_of_a_remote_experiment_are_shown(place, monkeypatch):
    folder = f"{place.root}/experiments/compare"
    place.fs.pipe_file(
        f"{folder}/experiment.json", b'{"title": "T", "outputs": {"table1": {"files": ["table1.md", "figure.png"]}}}'
    )
    place.fs.pipe_file(f"{folder}/table1.md", b"| scores |")
    shown: list[str] = []
    monkeypatch.setattr(visible, "create_markdown_artifact", lambda text, *_: shown.append(text))
    visible.show_experiment(place.address(folder), "compare")
    assert shown[0].startswith("| scores |")
