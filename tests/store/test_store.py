"""Shards, manifests, fingerprints: atomic, resumable, byte-identical."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.stages.registry import kind_of
from dmp_core.store import (
    Artefact,
    FileRecord,
    Manifest,
    Sample,
    ShardPlan,
    Workspace,
    fingerprint,
    open_dataset,
    plan_shards,
    read_artefact,
    record_files,
    sample_key,
    sample_seed,
    sidecars,
    staged_folder,
    write_shards,
)
from dmp_core.store.threads import threads_of_work

KEYS = [sample_key("train", index) for index in range(7)]


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def produce(plan: ShardPlan) -> list[Sample]:
    return [{"__key__": key, "png": png(int(key[-2:])), "json": json.dumps({"key": key}).encode()} for key in plan.keys]


def publish(out: Artefact, files: list[FileRecord]) -> None:
    manifest = Manifest(
        stage=out.stage, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={},
        files=files, samples=len(KEYS), seconds=0.0, created="now",
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())


@pytest.fixture(params=["local", "memory"])
def out(request, tmp_path) -> Artefact:
    url = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    return kind_of("images").artefact(Workspace(url), "train", "0123456789ab")


def test_round_trip_and_plain_tar(out):
    publish(out, write_shards(out, plan_shards(KEYS, 3), produce))
    assert [sample["__key__"] for sample in read_artefact(out)] == KEYS
    assert [record.samples for record in sidecars(out)] == [3, 3, 1]
    with tarfile.open(fileobj=io.BytesIO(out.read_bytes("shard-000002.tar"))) as archive:
        assert sorted(archive.getnames()) == ["train-00000006.json", "train-00000006.png"]
        assert all(member.mtime == 0 for member in archive)


def test_interrupted_run_resumes_at_the_first_missing_shard(out):
    made: list[int] = []

    def fail_at_last(plan: ShardPlan) -> list[Sample]:
        made.append(plan.index)
        if plan.index == 2:
            raise RuntimeError("killed")
        return produce(plan)

    with pytest.raises(RuntimeError):
        write_shards(out, plan_shards(KEYS, 3), fail_at_last)
    assert out.status() == "partial"
    made.clear()
    records = write_shards(out, plan_shards(KEYS, 3), lambda plan: (made.append(plan.index), produce(plan))[1])
    assert made == [2]
    assert len(records) == 3


def test_deleted_shard_alone_is_redone_byte_identical(out):
    publish(out, write_shards(out, plan_shards(KEYS, 3), produce))
    before = out.read_bytes("shard-000001.tar")
    out.workspace.fs.rm(out.file("shard-000001.tar"))
    assert out.status() == "partial"
    made: list[int] = []
    write_shards(out, plan_shards(KEYS, 3), lambda plan: (made.append(plan.index), produce(plan))[1])
    assert made == [1]
    assert out.read_bytes("shard-000001.tar") == before
    assert out.status() == "complete"


def test_redone_shard_that_differs_is_refused(out):
    publish(out, write_shards(out, plan_shards(KEYS, 3), produce))
    out.workspace.fs.rm(out.file("shard-000000.tar"))

    def other(plan: ShardPlan) -> list[Sample]:
        return [sample | {"png": png(99)} for sample in produce(plan)]

    sidecar = out.read_bytes("shard-000000.json")
    for _ in range(2):  # it fails every time, and never publishes a shard that contradicts the manifest
        with pytest.raises(InputError, match=r"shard-000000.tar.*differs.*`dmp stage images --force`"):
            write_shards(out, plan_shards(KEYS, 3), other)
        assert not out.exists("shard-000000.tar")
        assert out.read_bytes("shard-000000.json") == sidecar
        assert out.status() == "partial"
    out.workspace.fs.rm(out.path, recursive=True)  # as --force does
    publish(out, write_shards(out, plan_shards(KEYS, 3), other))
    assert out.verify() == []


def by_threads(plan: ShardPlan) -> list[Sample]:
    """Sums whose last digits depend on how many threads share the work."""
    random = torch.Generator().manual_seed(plan.index)
    total = torch.rand(1_000_003, generator=random).sub(0.5).sum()
    return [{"__key__": key, "txt": total.numpy().tobytes()} for key in plan.keys]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_shard_is_redone_with_as_many_threads_as_it_was_made_with(out):
    plans, sums = plan_shards(KEYS, 3), {}
    for count in (1, 2):
        torch.set_num_threads(count)
        sums[count] = by_threads(plans[0])[0]["txt"]
    assert sums[1] != sums[2], "threads make no difference, so that this test shows nothing"

    torch.set_num_threads(2)
    publish(out, write_shards(out, plans, by_threads, threaded=True))
    before = {name: out.read_bytes(name) for name in ("shard-000000.tar", "shard-000000.json")}
    assert FileRecord.model_validate_json(before["shard-000000.json"]).threads == 2
    torch.set_num_threads(1)
    for lost in (["shard-000000.tar"], ["shard-000000.tar", "shard-000000.json"]):
        for name in lost:
            out.workspace.fs.rm(out.file(name))
        write_shards(out, plans, by_threads, threaded=True)
        assert {name: out.read_bytes(name) for name in before} == before
        assert out.verify() == []
        assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("threads")
def test_an_interrupted_artefact_resumes_with_its_number_of_threads(out):
    plans = plan_shards(KEYS, 3)
    torch.set_num_threads(2)
    write_shards(out, plans, by_threads, only=[0], threaded=True)
    torch.set_num_threads(1)
    assert [record.threads for record in write_shards(out, plans, by_threads, threaded=True)] == [2, 2, 2]


@pytest.mark.usefixtures("threads")
def test_a_shard_whose_threads_are_not_recorded_is_refused_with_a_way_out(out):
    """As older versions left it."""
    plans = plan_shards(KEYS, 3)
    torch.set_num_threads(2)
    publish(out, write_shards(out, plans, by_threads))
    out.workspace.fs.rm(out.file("shard-000001.tar"))
    torch.set_num_threads(1)
    with pytest.raises(InputError, match="another number of threads than 1; nothing was changed"):
        write_shards(out, plans, by_threads, threaded=True)
    torch.set_num_threads(2)
    write_shards(out, plans, by_threads, threaded=True)
    assert out.verify() == []


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("note", [None, b"", b"two"])
def test_work_resumes_with_its_number_of_threads(tmp_path, note):
    torch.set_num_threads(2)
    with threads_of_work(tmp_path) as count:
        assert count == 2
    if note is not None:  # damaged: as if begun just now
        (tmp_path / ".threads").write_bytes(note)
    torch.set_num_threads(1)
    with threads_of_work(tmp_path) as count:
        assert count == torch.get_num_threads() == (2 if note is None else 1)
    assert torch.get_num_threads() == 1


def test_short_shard_is_not_published(out):
    with pytest.raises(InputError, match="made 2 of 3"):
        write_shards(out, plan_shards(KEYS, 3), lambda plan: produce(plan)[:-1])
    assert not out.exists("shard-000000.tar")


def test_changed_bytes_are_named(out):
    publish(out, write_shards(out, plan_shards(KEYS, 3), produce))
    data = bytearray(out.read_bytes("shard-000001.tar"))
    data[600] ^= 1
    out.write_bytes("shard-000001.tar", bytes(data))
    assert out.verify() == ["shard-000001.tar"]
    with pytest.raises(InputError, match=r"shard-000001.tar.*delete it"):
        list(read_artefact(out))


def test_truncated_tar_in_a_foreign_dataset_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar at all" * 100)
    with pytest.raises(InputError, match=r"a\.tar: unreadable shard"):
        list(open_dataset(str(tmp_path)))


def test_open_dataset_decodes(tmp_path):
    out = kind_of("shards").artefact(Workspace(str(tmp_path)), "toy/train", "0" * 12)
    write_shards(out, plan_shards(KEYS, 4), produce)
    samples = list(open_dataset(str(tmp_path / "datasets" / "toy")))
    assert [sample["json"]["key"] for sample in samples] == KEYS
    assert np.asarray(samples[5]["png"])[0, 0, 0] == 5


def test_one_path_serves_one_fingerprint_at_a_time(tmp_path):
    """The folder of a merged dataset is the same for all settings: what others made in it counts for nothing."""
    workspace, plans = Workspace(str(tmp_path)), plan_shards(KEYS, 4)
    first, second = (kind_of("shards").artefact(workspace, "toy/train", digit * 12) for digit in "01")
    assert first.path == second.path
    publish(first, write_shards(first, plans, produce))
    assert second.manifest() is None
    assert (first.status(), second.status()) == ("complete", "missing")
    made: list[int] = []
    write_shards(second, plans, lambda plan: made.append(plan.index) or produce(plan))
    assert made == [0, 1]


def test_staged_folder_publishes_whole_and_keeps_work_on_failure(tmp_path):
    out = kind_of("train").artefact(Workspace(str(tmp_path)), "normal-dmp", "0" * 12)

    def killed_after_a_checkpoint() -> None:
        with staged_folder(out) as folder:
            (folder / ".checkpoints").mkdir()
            (folder / ".checkpoints" / "step").write_text("5")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        killed_after_a_checkpoint()
    assert not out.workspace.fs.exists(out.path)
    with staged_folder(out) as folder:
        assert (folder / ".checkpoints" / "step").read_text() == "5"
        (folder / "adapter").write_text("weights")
    assert [record.name for record in record_files(out)] == ["adapter"]


def test_fingerprint_depends_on_everything_and_on_nothing_else():
    base = fingerprint("images", 1, {"a": 1, "b": 2}, {"prompts": "x"})
    assert base == fingerprint("images", 1, {"b": 2, "a": 1}, {"prompts": "x"})
    others = [
        fingerprint("labels", 1, {"a": 1, "b": 2}, {"prompts": "x"}),
        fingerprint("images", 2, {"a": 1, "b": 2}, {"prompts": "x"}),
        fingerprint("images", 1, {"a": 1, "b": 3}, {"prompts": "x"}),
        fingerprint("images", 1, {"a": 1, "b": 2}, {"prompts": "y"}),
    ]
    assert len({base, *others}) == 5
    assert len(base) == 12


def test_sample_seeds_are_stable_and_distinct():
    # SHA-256 of "0/train-00000000", first eight bytes, shifted: computed with sha256sum.
    import hashlib

    assert sample_seed(0, "train-00000000") == int(hashlib.sha256(b"0/train-00000000").hexdigest()[:16], 16) >> 1
    seeds = {sample_seed(seed, key) for seed in (0, 1) for key in KEYS}
    assert len(seeds) == 2 * len(KEYS)
