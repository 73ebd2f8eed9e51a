"""Locks: one holder at a time, no holder for ever. Killed processes are really killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmp_core.stages.registry import kind_of
from dmp_core.store import (
    Lock,
    LockLost,
    Sample,
    ShardPlan,
    Workspace,
    locks,
    plan_shards,
    read_shard,
    release_ended,
    shards,
    write_shards,
)

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys, time
from dmp_core.store import Lock, Workspace
with Lock(Workspace(sys.argv[1]), "thing") as lock:
    lock.wait()
    print("held", flush=True)
    time.sleep(600)
"""

# Each shard made is one line of a file that both processes append to.
SHARE = """
import os, sys, time
from dmp_core.stages.registry import kind_of
from dmp_core.store import Workspace, plan_shards, write_shards
out = kind_of("images").artefact(Workspace(sys.argv[1]), "train", "0123456789ab")
def produce(plan):
    with open(sys.argv[1] + "/made", "a") as log:
        log.write(f"{plan.name} {os.getpid()}\\n")
    time.sleep(0.2)
    return [{"__key__": key, "txt": key.encode()} for key in plan.keys]
print("ready", flush=True)
sys.stdin.readline()
plans = plan_shards([f"train-{n:08d}" for n in range(12)], 2)
write_shards(out, plans, produce, encode=lambda samples: samples[0]["txt"])
"""

# Processes that acquire and release a lock as fast as they can, each until a signal ends it meanwhile.
SIGNALS = """
import os, random, signal, sys, time
from dmp_core.store import Lock, Workspace
place, luck = Workspace(sys.argv[1]), random.Random(0)
os.mkdir(place.root + "/.locks")  # a slow machine may end the first process before it makes it
signal.signal(signal.SIGALRM, lambda number, frame: sys.exit(7))
print("ready", flush=True)
for _ in range(40):
    moment = 0.002 + 0.02 * luck.random()
    if not (child := os.fork()):
        signal.setitimer(signal.ITIMER_REAL, moment)
        end = time.monotonic() + 1
        while time.monotonic() < end:  # a signal may be lost: a destructor's exception is ignored
            with Lock(place, "thing") as lock:
                lock.acquire()
        sys.exit(7)
    os.waitpid(child, 0)
    assert not os.listdir(place.root + "/.locks")
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """A process that has printed its first line."""
    command = [sys.executable, "-c", code, str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path) -> Workspace:
    return Workspace(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


def left(place: Workspace) -> list[str]:
    return place.fs.find(f"{place.root}/.locks") if place.fs.exists(f"{place.root}/.locks") else []


def test_one_holds_it_and_then_the_other(place):
    first, second = Lock(place, "labels/train"), Lock(place, "labels/train")
    assert first.acquire()
    assert not second.acquire()
    assert Lock(place, "labels/test").acquire()
    first.release()
    assert second.acquire()
    first.release()
    second.check()
    second.release()
    assert [path.rsplit("/", 1)[-1] for path in left(place)] == ["labels-test.lock"]


def test_lock_of_a_killed_process_is_free_immediately(tmp_path):
    holder = start(HOLD, tmp_path)
    lock = Lock(Workspace(tmp_path), "thing")
    assert not lock.acquire()
    holder.kill()
    holder.wait()
    assert lock.acquire()
    lock.release()
    assert left(lock.workspace) == []


def test_a_run_releases_what_killed_ones_completed_and_no_other_lock(tmp_path):
    """Killed between its manifest and the end of its lock, an artefact is complete: nobody waits for that lock."""
    holder, other = start(HOLD, tmp_path), Lock(Workspace(tmp_path), "ours")
    elsewhere(other.workspace, 0, "far")
    assert other.acquire()
    release_ended(other.workspace)
    assert len(left(other.workspace)) == 3
    holder.kill()
    holder.wait()
    release_ended(other.workspace)
    assert [Path(path).name for path in left(other.workspace)] == ["far.lock", "ours.lock"]
    other.release()
    release_ended(Workspace("memory://nothing"))


def elsewhere(place: Workspace, beat: int, name: str = "thing") -> None:
    holder = {"token": "other", "beat": beat, "host": "far", "machine": "another boot", "pid": 1, "started": "1"}
    place.fs.makedirs(f"{place.root}/.locks", exist_ok=True)
    place.fs.pipe_file(f"{place.root}/.locks/{name}.lock", json.dumps(holder).encode())


def test_a_silent_holder_on_another_machine_is_given_time(place, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(locks.time, "monotonic", lambda: now)
    lock = Lock(place, "thing")
    elsewhere(place, beat=1)
    assert not lock.acquire()
    now += locks.STALE - 1
    elsewhere(place, beat=2)
    assert not lock.acquire()
    now += locks.STALE - 1
    assert not lock.acquire()
    now += 2
    assert lock.acquire()
    lock.check()


THERE = {"token": "other", "beat": 3, "host": "far", "machine": "its boot pid:[1]", "pid": 1, "started": "1"}
HERE = {"host": socket.gethostname(), "pid": os.getpid(), "started": locks._started(os.getpid())}
ABANDONED = {
    "foreign host": json.dumps(THERE).encode(),
    "another boot": json.dumps(THERE | HERE).encode(),
    "empty": b"",
    "cut short": b'{"token": "oth',
    "another kind of JSON": b"null",
    "without a process": json.dumps({"machine": locks._machine(), "host": "here"}).encode(),
    "no text": b"\xff\xfe\0\0",
    "nested": b"[" * 100_000,
}
"""Locks whose holder cannot be checked."""


def plant(place: Workspace, name: str, content: bytes) -> None:
    place.fs.makedirs(f"{place.root}/.locks", exist_ok=True)
    place.fs.pipe_file(f"{place.root}/.locks/{name}.lock", content)


@pytest.mark.parametrize("kind", ABANDONED)
def test_a_shard_lock_that_stays_silent_is_taken_over(tmp_path, monkeypatch, kind, caplog):
    monkeypatch.setattr(locks, "STALE", 0.2)
    monkeypatch.setattr(shards, "POLL", 0.02)
    out = kind_of("labels").artefact(Workspace(tmp_path), "train", "0123456789ab")
    for number in range(3):
        plant(out.workspace, f"labels-train-0123456789ab-shard-{number:06d}.tar", ABANDONED[kind])
    heard: list[str] = []
    records = write_shards(
        out, plan_shards([f"train-{n:08d}" for n in range(6)], 2),
        lambda plan: [{"__key__": key, "txt": key.encode()} for key in plan.keys],
        progress=lambda done, total, message="": heard.append(message),
    )  # fmt: skip
    assert [record.samples for record in records] == [2, 2, 2]
    assert left(out.workspace) == []
    assert any(message.startswith("waiting for ") for message in heard)
    assert caplog.text.count("lock taken over from") == 3


def test_a_shard_lock_that_is_renewed_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE", 0.3)
    monkeypatch.setattr(shards, "POLL", 0.02)
    out = kind_of("labels").artefact(Workspace(tmp_path), "train", "0123456789ab")
    lock = "labels-train-0123456789ab-shard-000000.tar"
    started, made = time.monotonic(), []

    def alive(done: int, total: int, message: str = "") -> None:
        if message and time.monotonic() < started + 1:
            holder = {"token": "other", "beat": time.monotonic_ns(), "host": "far", "machine": "x", "pid": 1}
            plant(out.workspace, lock, json.dumps(holder | {"started": "1"}).encode())

    plant(out.workspace, lock, ABANDONED["foreign host"])
    write_shards(
        out, plan_shards(["train-00000000"], 1),
        lambda plan: made.append(time.monotonic()) or [{"__key__": plan.keys[0], "txt": b""}],
        progress=alive,
    )  # fmt: skip
    assert made[0] > started + 1


def test_a_shard_that_another_run_took_over_is_left_to_it(tmp_path):
    out = kind_of("labels").artefact(Workspace(tmp_path), "train", "0123456789ab")
    plans, lock = plan_shards(["train-00000000"], 1), "labels-train-0123456789ab-shard-000000.tar"

    def slow(plan: ShardPlan) -> list[Sample]:
        """While it computes it is presumed dead; the other run makes the shard and releases the lock."""
        plant(out.workspace, lock, ABANDONED["foreign host"])
        other()
        return [{"__key__": plan.keys[0], "txt": b"mine"}]

    def other() -> None:
        out.workspace.fs.rm_file(f"{tmp_path}/.locks/{lock}.lock")
        write_shards(out, plans, lambda plan: [{"__key__": plan.keys[0], "txt": b"theirs"}])

    write_shards(out, plans, slow)
    assert [sample["txt"] for sample in read_shard(out.workspace, out.file("shard-000000.tar"))] == [b"theirs"]
    assert left(out.workspace) == []


def test_a_lock_may_be_taken_again_and_still_beats(place, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    lock = Lock(place, "thing")
    for _ in range(2):
        with lock:
            lock.wait()
            deadline = time.monotonic() + 20
            while b'"beat":0' in (lock._read() or b"") and time.monotonic() < deadline:
                time.sleep(0.01)
            assert b'"beat":0' not in (lock._read() or b"")
        assert left(place) == []
        assert lock.holder() is None


def test_a_creation_whose_response_was_lost_is_recognised(monkeypatch):
    lock = Lock(Workspace("memory://lost-answer"), "thing")
    pipe = lock.workspace.fs.pipe_file

    def lost(path: str, content: bytes, **options: str) -> None:
        pipe(path, content)
        raise OSError("connection reset")

    with monkeypatch.context() as patch, lock:
        patch.setattr(lock.workspace.fs, "pipe_file", lost)
        assert lock.acquire()
        lock.check()

    def refused(path: str, content: bytes, **options: str) -> None:
        raise OSError("no such bucket")

    monkeypatch.setattr(lock.workspace.fs, "pipe_file", refused)
    with lock, pytest.raises(OSError, match="no such bucket"):
        lock.acquire()


def test_a_holder_presumed_dead_notices_before_publishing(place):
    lock = Lock(place, "thing")
    assert lock.acquire()
    elsewhere(place, beat=1)
    with pytest.raises(LockLost, match="thing: another run took over"):
        lock.check()
    lock.release()
    assert len(left(place)) == 1


def test_a_lock_that_is_being_written_is_held(tmp_path):
    place = Workspace(tmp_path)
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "thing.lock").touch()
    assert not Lock(place, "thing").acquire()


@pytest.mark.slow
def test_a_signal_at_any_moment_leaves_no_lock(tmp_path):
    with start(SIGNALS, tmp_path) as process:
        assert process.wait(timeout=120) == 0


def test_two_runs_share_the_shards_and_make_none_twice(tmp_path):
    runs = [start(SHARE, tmp_path) for _ in range(2)]
    for run in runs:
        go(run)
    assert [run.wait() for run in runs] == [0, 0]
    made = [line.split() for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(name for name, _ in made) == [f"shard-{number:06d}.tar" for number in range(6)]
    assert {pid for _, pid in made} == {str(run.pid) for run in runs}
    assert left(Workspace(tmp_path)) == []


def test_the_shard_of_a_killed_run_is_made_by_the_other(tmp_path):
    killed = start(SHARE.replace("0.2", "600"), tmp_path)
    go(killed)
    while not (tmp_path / "made").exists():
        assert killed.poll() is None
    other = start(SHARE, tmp_path)
    go(other)
    while len((tmp_path / "made").read_text().splitlines()) < 6:
        assert other.poll() is None
    killed.kill()
    killed.wait()
    assert other.wait() == 0
    out = kind_of("images").artefact(Workspace(tmp_path), "train", "0123456789ab")
    keys = [f"train-{n:08d}" for n in range(12)]
    assert len(write_shards(out, plan_shards(keys, 2), lambda plan: pytest.fail("all are made"))) == 6


def test_a_beat_that_fails_in_any_way_is_followed_by_the_next(place, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with Lock(place, "thing") as lock:
        rewrite, failures = lock._rewrite, []

        def fails_once(content: bytes) -> None:
            if not failures:
                failures.append(content)
                raise RuntimeError("of a kind that only the storage's client defines")
            rewrite(content)

        monkeypatch.setattr(lock, "_rewrite", fails_once)
        assert lock.acquire()
        deadline = time.monotonic() + 10
        while b'"beat":0' in (lock._read() or b"") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert failures
        assert b'"beat":0' not in (lock._read() or b"")
