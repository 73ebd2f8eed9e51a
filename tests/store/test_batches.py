"""Where memory runs out, a shard is made in one smaller batch, which is recorded and used again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_core.errors import InputError
from dmp_core.memory import Batches
from dmp_core.stages.registry import kind_of
from dmp_core.store import Artefact, FileRecord, Manifest, Sample, ShardPlan, Workspace, plan_shards, write_shards

KEYS = [f"train-{index:08d}" for index in range(12)]


class Card:
    """A device whose memory holds some samples; what it makes depends on the batch, as rounding does."""

    def __init__(self, holds: int, size: int = 4) -> None:
        self.holds = holds
        self.tried: list[int] = []
        self.batches = Batches(size, "latents/x", "cpu", "take less")

    def make(self, keys: Sequence[str]) -> list[Sample]:
        self.tried.append(len(keys))
        if len(keys) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [{"__key__": key, "txt": str(len(keys)).encode()} for key in keys]

    def produce(self, plan: ShardPlan) -> Iterator[Sample]:
        for samples in self.batches(plan.keys, self.make):
            yield from samples

    def write(self, out: Artefact, plans: list[ShardPlan], **options: Any) -> list[FileRecord]:
        return write_shards(out, plans, self.produce, batches=self.batches, **options)


@pytest.fixture
def out(tmp_path: Path) -> Artefact:
    return artefact(tmp_path / "here")


def artefact(folder: Path) -> Artefact:
    return kind_of("latents").artefact(Workspace(folder), "train", "0123456789ab")


def publish(out: Artefact, files: list[FileRecord]) -> dict[str, bytes]:
    """Publish the artefact; returns its files."""
    manifest = Manifest(
        stage=out.stage, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={},
        files=files, samples=len(KEYS), seconds=0.0, created="now",
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())
    return stored(out)


def stored(out: Artefact) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out.path).iterdir() if path.is_file()}


def remove(out: Artefact, name: str) -> None:
    (Path(out.path) / name).unlink()


@pytest.mark.parametrize("only", [None, [1]])
def test_a_shard_is_redone_in_the_batch_that_it_was_made_in(out: Artefact, only: list[int] | None) -> None:
    plans = plan_shards(KEYS, 6)
    records = Card(holds=2).write(out, plans)
    assert [record.batch for record in records] == [2, 2]
    before = publish(out, records)
    remove(out, "shard-000001.tar")
    roomy = Card(holds=9)
    roomy.write(out, plans, only=only)
    assert stored(out) == before
    assert roomy.tried == [2, 2, 2]


def test_a_shard_without_a_recorded_batch_is_redone_in_the_configured_one(out: Artefact) -> None:
    """As those of older versions, also after one that has its own."""
    plans = plan_shards(KEYS, 6)
    Card(holds=2).write(out, plans, only=[0])
    first, second = Card(holds=9).write(out, plans, only=[1])
    publish(out, [first, second.model_copy(update={"batch": None})])
    roomy = Card(holds=9)
    roomy.write(out, plans, only=[0, 1])
    assert roomy.tried == [2, 2, 2, 4, 2]


def test_a_shard_in_which_memory_runs_out_begins_again(out: Artefact, tmp_path: Path) -> None:
    """Another program takes memory after the first batch; then all of the shard is made in the smaller ones."""

    class Shrinking(Card):
        def make(self, keys: Sequence[str]) -> list[Sample]:
            self.holds = 2 if self.tried else 9
            return super().make(keys)

    plans, card = plan_shards(KEYS[:8], 8), Shrinking(holds=9)
    (record,) = card.write(out, plans)
    assert card.tried == [4, 4, 2, 2, 2, 2]
    (expected,) = Card(holds=2).write(artefact(tmp_path / "there"), plans)
    assert (record.batch, record.sha256) == (2, expected.sha256)


def test_another_batch_is_named_where_a_shard_cannot_be_made_as_it_was(out: Artefact) -> None:
    plans = plan_shards(KEYS, 12)
    before = publish(out, Card(holds=9).write(out, plans))
    with pytest.raises(InputError, match="or in another batch than 1; nothing was changed"):
        Card(holds=1).write(out, plans, only=[0])
    assert stored(out) == before


def test_failed_samples_count_once(out: Artefact) -> None:
    """Of a shard that begins again; the bound of those in a row would end it otherwise."""
    from dmp_core.runtime import BadSampleConfig
    from dmp_core.store import Skipped

    card, plans = Card(holds=4, size=4), plan_shards(KEYS, 12)

    def produce(plan: ShardPlan) -> Iterator[Sample | Skipped]:
        yield from (Skipped(key, "broken") for key in plan.keys[:3])
        card.holds = 1 if not card.tried else card.holds
        for samples in card.batches(plan.keys[3:], card.make):
            yield from samples

    bounds = BadSampleConfig(policy="skip", at_most=0.5, in_a_row=4)
    (record,) = write_shards(out, plans, produce, batches=card.batches, bounds=bounds)
    assert (len(record.skipped), record.samples, record.batch) == (3, 9, 1)
