"""Full, broken and read-only disks: an error that names the path, nothing half done, and the rerun ends the same."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmp_core.config import load_config
from dmp_core.stages import plan
from dmp_core.stages.preflight import check_workspace, preflight
from dmp_core.stages.registry import kind_of
from dmp_core.store import Lock, Workspace, locks, staged_folder
from dmp_core.store.files import create_file, disk_error, sync_folder, write_file
from tasks import worth_retrying
from tests import faults
from tests.commands import WITHOUT_PREFECT

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(faults.compiler() is None, reason="needs a C compiler")
def test_every_write_may_fail_and_nothing_is_lost(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **faults.environment(faults.build(tmp_path), tmp_path / "w")}
    command = [sys.executable, "-m", "tests.faults.drill", str(tmp_path / "w")]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    tried = [line.split(": ") for line in done.stdout.splitlines()]
    assert [kind for kind, _ in tried] == ["ENOSPC for good", "EIO once", "EROFS for good"]
    assert sum(int(count.split()[0]) for _, count in tried) > 100


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_lock_whose_writing_failed_blocks_no_process(tmp_path, monkeypatch):
    lock = Lock(Workspace(tmp_path), "thing")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*thing\.lock"), lock:
            lock.wait()
    assert os.listdir(tmp_path / ".locks") == []
    with lock:  # and it may be used again
        lock.wait()
        assert lock.holder() == f"process {os.getpid()} on {os.uname().nodename}"


def test_a_beat_on_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with Lock(Workspace(tmp_path), "thing") as lock:
        lock.wait()
        with monkeypatch.context() as patch:
            failed: list[int] = []
            patch.setattr(os, "write", lambda *given: failed.append(1) or full())
            while len(failed) < 3:
                time.sleep(0.01)
    assert os.listdir(tmp_path / ".locks") == []


def test_a_lock_that_cannot_be_removed_does_not_hide_the_error(tmp_path, monkeypatch, caplog):
    def fail() -> None:
        with Lock(Workspace(tmp_path), "thing") as lock:
            lock.wait()
            monkeypatch.setattr(lock.workspace.fs, "rm_file", full)
            raise KeyError("the error itself")

    with pytest.raises(KeyError, match="the error itself"):
        fail()
    assert "thing: its lock could not be removed" in caplog.text


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "manifest.json"
    write_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        for _ in range(3):  # a retry leaves no file either
            with pytest.raises(OSError, match="No space left on device") as raised:
                write_file(path, b"new")
            assert raised.value.filename == str(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"manifest.json": b"old"}
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / ".locks").touch()
    with pytest.raises(NotADirectoryError), Lock(Workspace(tmp_path), "thing") as lock:
        lock.wait()
    with pytest.raises(NotADirectoryError):
        create_file(tmp_path / ".locks" / "a", b"")


def test_folders_that_cannot_be_synced_are_no_error_and_broken_ones_are(tmp_path, monkeypatch):
    for number, refused in ((errno.EINVAL, False), (errno.EIO, True)):
        monkeypatch.setattr(os, "fsync", lambda _, number=number: (_ for _ in ()).throw(OSError(number, "no")))
        if refused:
            with pytest.raises(OSError, match="no"):
                sync_folder(tmp_path)
        else:
            sync_folder(tmp_path)


def test_errors_of_libraries_become_errors_of_the_disk(tmp_path):
    out = kind_of("train").artefact(Workspace(tmp_path), "normal", "0" * 12)

    def write(error: Exception) -> None:
        with staged_folder(out):
            raise error

    with pytest.raises(OSError, match=r"No space left on device: .*\.scratch") as raised:
        write(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert raised.value.errno == errno.ENOSPC
    wrapped = RuntimeError("unexpected pos 64 vs 0")
    wrapped.__context__ = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        write(wrapped)
    with pytest.raises(RuntimeError, match="of another kind"):
        write(RuntimeError("of another kind"))
    assert disk_error(FileNotFoundError(errno.ENOENT, "no such file")) is None


# --------------------------------------------------------------------------- before a run
SMOKE = plan(load_config("smoke"))


def test_missing_disk_space_is_reported_before_any_work(tmp_path, monkeypatch):
    check_workspace(SMOKE, Workspace(tmp_path / "w"))
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"about 2\.3 MB needed, 1\.0 MB free") as raised:
        check_workspace(SMOKE, Workspace(tmp_path / "w"))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "w"))
    check_workspace(SMOKE[:1], Workspace(tmp_path / "w"))
    check_workspace(SMOKE, Workspace("memory://w"))
    assert not (tmp_path / "w").exists()


def test_a_file_in_place_of_a_folder_is_reported_before_any_work(tmp_path):
    (tmp_path / "images").touch()
    with pytest.raises(NotADirectoryError) as raised:
        check_workspace(SMOKE, Workspace(tmp_path))
    assert raised.value.filename == str(tmp_path / "images")
    assert preflight(SMOKE, Workspace(tmp_path), 0, 0.0).refused == f"{tmp_path / 'images'}: Not a directory"


@pytest.mark.parametrize(("flag", "number"), [(0, errno.EACCES), (os.ST_RDONLY, errno.EROFS)])
def test_missing_permissions_are_reported_before_any_work(tmp_path, monkeypatch, flag, number):
    closed = tmp_path / "images"
    closed.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and real(path, mode))
    check_workspace([node for node in SMOKE if node.stage != "images"], Workspace(tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda _: type("Statvfs", (), {"f_flag": flag}))
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        check_workspace(SMOKE, Workspace(tmp_path))
    assert (raised.value.errno, raised.value.filename) == (number, str(closed))


def test_a_full_disk_is_not_tried_again_and_a_failing_one_is():
    again = {number: worth_retrying(OSError(number, os.strerror(number))) for number in (errno.ENOSPC, errno.EIO)}
    assert again == {errno.ENOSPC: False, errno.EIO: True}
    assert not worth_retrying(OSError(errno.EROFS, "Read-only file system"))


@pytest.mark.slow
@pytest.mark.skipif(faults.compiler() is None, reason="needs a C compiler")
def test_a_full_disk_is_one_line_with_the_fix(tmp_path):
    """In the middle of a run, and nothing half done is left."""
    place, library = tmp_path / "w", faults.build(tmp_path)
    command = [sys.executable, "-c", WITHOUT_PREFECT, "dataset", "new", "-p", "smoke", "-k", "kitchen", "-n", "2"]
    command += ["-w", str(place), "--set", "modalities=[normal]"]
    command += ["--set", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}"]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | faults.environment(library, place, (30, errno.ENOSPC, True))
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {place}/")
    assert "No space left on device; " in line
    assert "Traceback" not in done.stdout + done.stderr
    left = [path.name for path in place.rglob("*") if path.is_file()]
    assert "prompts.parquet" in left
    assert not [name for name in left if name.endswith((".tmp", ".lock"))]


def test_temporary_files_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path):
    killed = """
import os, sys
from pathlib import Path
from dmp_core.store.files import write_file
os.fsync = lambda _: os.kill(os.getpid(), 9)
write_file(Path(sys.argv[1]) / "manifest.json", b"new")
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".manifest.json.")
    place = left.split(".")[-2].split("-")[0]
    kept = [
        f".shard-000000.tar.{place}-1-0123abcd.tmp",
        f".shard-000000.tar.{'0' * 8}-999999999-0123abcd.tmp",
        ".of another program.tmp",
    ]
    for name in kept:
        (tmp_path / name).touch()
    write_file(tmp_path / "README.md", b"card")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "README.md"])
