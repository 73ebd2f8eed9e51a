"""Webdataset shards: written atomically, byte-identical each time, resumable one by one."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

from dmp_core.errors import InputError
from dmp_core.memory import Batches, SmallerBatches
from dmp_core.progress import Progress, silent
from dmp_core.store.fingerprint import sha256_stream
from dmp_core.store.folders import files_below
from dmp_core.store.locks import POLL, Lock, LockLost
from dmp_core.store.members import decode_member
from dmp_core.store.skipped import Bounds, SkipCount, Skipped
from dmp_core.store.threads import torch_threads
from dmp_core.store.workspace import Artefact, FileRecord, Workspace, read_sidecar, sidecars
from dmp_core.text import one_line

Sample = dict[str, Any]
"""One sample: `__key__` (str), and its members' bytes by extension (`png`, `normal.png`, `json`)."""


@dataclass(frozen=True)
class ShardPlan:
    """The samples that belong in one shard."""

    index: int
    keys: tuple[str, ...]
    suffix: str = "tar"
    skipped: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Key → reason of those that belong here, but are missing in the shard's input."""

    @property
    def planned(self) -> int:
        """How many samples belong here, skipped ones included."""
        return len(self.keys) + len(self.skipped)

    @property
    def name(self) -> str:
        return f"shard-{self.index:06d}.{self.suffix}"

    @property
    def sidecar(self) -> str:
        return f"shard-{self.index:06d}.json"


def sample_key(split: str, index: int) -> str:
    return f"{split}-{index:08d}"


def plan_shards(
    keys: Iterable[str], samples_per_shard: int, skipped: Mapping[str, str] | None = None
) -> list[ShardPlan]:
    """skipped: key → reason of the samples that are not in `keys`; they keep their places in the shards."""
    lost = skipped or {}
    ordered = sorted({*keys, *lost}) if lost else list(keys)
    parts = (ordered[start : start + samples_per_shard] for start in range(0, len(ordered), samples_per_shard))
    return [
        ShardPlan(n, tuple(k for k in part if k not in lost), skipped={k: lost[k] for k in part if k in lost})
        for n, part in enumerate(parts)
    ]


class Chunk(tuple[int, ...]):
    """Numbers of shards of which only the missing ones are to be made; any other iterable makes all of them again."""


def write_shards(
    out: Artefact,
    plans: list[ShardPlan],
    produce: Callable[[ShardPlan], Iterable[Sample | Skipped]],
    *,
    only: Iterable[int] | None = None,
    encode: Callable[[list[Sample]], bytes] | None = None,
    threaded: bool = False,
    batches: Batches | None = None,
    bounds: Bounds | None = None,
    progress: Progress = silent,
) -> list[FileRecord]:
    """Make every missing shard and return the records of all finished shards.

    Runs that share the workspace share the work: a shard that another run is making comes last, and is waited for.

    Args:
        produce: yields the samples of one shard, or `Skipped` for those that failed: one per key, in the order of the
            keys.
        only: redo these shard numbers even if they exist (of a `Chunk`: make the missing ones), and no others.
        encode: turns the samples into the file's bytes; a tar by default.
        threaded: torch computes the samples, and its rounding depends on the number of threads: it is recorded with
            each shard, and used again for all shards of this artefact.
        batches: those of `produce` and `encode`. Where memory runs out, the shard begins again in smaller ones, so that
            it depends on one size, which is recorded, and used again when it is redone.
        bounds: how many samples may fail; if None, `produce` yields no `Skipped`.
    Raises:
        InputError: a redone shard differs from the one in the manifest (it is not published then), samples are
            missing, more of them failed than the bounds allow, or `only` names a shard that is not planned.
    """
    wanted = None if only is None else set(only)
    planned = {plan.index for plan in plans}
    if wanted and (beyond := wanted - planned):
        raise InputError(f"--shards {min(beyond)}: {out.path} has shards 0 to {max(planned, default=0)} only")
    redo = wanted is not None and not isinstance(only, Chunk)
    total = sum(len(plan.keys) for plan in plans)
    failures = None if bounds is None else SkipCount(f"{out.stage}/{out.name}", total, bounds)
    writer = _Writer(out, produce, encode or _tar_bytes, threaded, progress, total, failures, batches)
    records: dict[int, FileRecord] = {}
    waiting = plans
    while waiting:
        others = []
        for plan in waiting:
            record = finished_shard(out, plan)
            if (wanted is None or plan.index in wanted) and (redo or record is None):
                record = writer.locked(plan, redo)
                if record is None:
                    others.append(plan)
                    continue
            elif record is not None:
                writer.found(plan, record)
            if record is not None:
                records[plan.index] = record
            writer.count(len(plan.keys))
        if len(others) == len(waiting):
            writer.wait_for(others[0])
        waiting = others
    return [records[index] for index in sorted(records)]


def offer_shard(out: Artefact, plan: ShardPlan, samples: list[Sample], batches: Batches) -> None:
    """Write a shard whose samples were made along with another artefact's; its own run then finds it.

    Nothing happens if it exists, if another run is making it, or if this artefact's shards are made with another number
    of threads, or this shard in another batch, than now.
    """
    import torch

    writer = _Writer(out, lambda _: samples, _tar_bytes, True, silent, 0, None, batches)
    threads_fit = writer._threads(plan) in (None, torch.get_num_threads())
    if finished_shard(out, plan) is None and threads_fit and writer._batch(plan) == batches.size:
        writer.locked(plan, redo=False)


class _Writer:
    """Makes the shards of one artefact, each under its lock."""

    def __init__(
        self,
        out: Artefact,
        produce: Callable[[ShardPlan], Iterable[Sample | Skipped]],
        encode: Callable[[list[Sample]], bytes],
        threaded: bool,
        progress: Progress,
        total: int,
        failures: SkipCount | None,
        batches: Batches | None,
    ) -> None:
        self.batches = batches
        self.out, self.produce, self.encode, self.threaded = out, produce, encode, threaded
        self.progress, self.total, self.done, self.failures = progress, total, 0, failures
        manifest = out.manifest()
        self.expected = {record.name: record for record in manifest.files} if manifest else {}
        self.locks: dict[int, Lock] = {}

    def count(self, samples: int) -> None:
        self.done += samples
        self.progress(self.done, self.total)

    def found(self, plan: ShardPlan, record: FileRecord) -> None:
        """Count the failed samples of a finished shard; raises InputError above the bounds."""
        if self.failures is not None:
            self.failures.made(plan.keys, record.skipped)

    def wait_for(self, plan: ShardPlan) -> None:
        if (holder := self._lock(plan).holder()) is not None:
            self.progress(self.done, self.total, f"waiting for {holder}")
        time.sleep(POLL)

    def locked(self, plan: ShardPlan, redo: bool) -> FileRecord | None:
        """The record of the shard, which is made if needed; None if another run is making it."""
        with self._lock(plan) as lock:
            if not lock.acquire():
                return None
            if not redo and (record := finished_shard(self.out, plan)) is not None:
                self.found(plan, record)
                return record
            try:
                return self._write(plan, lock)
            except LockLost:
                return None  # it was taken over, so another run is making it

    def _lock(self, plan: ShardPlan) -> Lock:
        """The same lock at every check: it counts how long its holder has been silent."""
        name = f"{self.out.stage}-{self.out.name}-{self.out.fingerprint}-{plan.name}"
        return self.locks.setdefault(plan.index, Lock(self.out.workspace, name))

    def _write(self, plan: ShardPlan, lock: Lock) -> FileRecord:
        with torch_threads(self._threads(plan)) if self.threaded else nullcontext() as threads:
            data, keys, failed = self._made_alike(plan)
        record = FileRecord(
            name=plan.name,
            bytes=len(data),
            sha256=sha256_stream(io.BytesIO(data)),
            samples=len(keys),
            first_key=keys[0] if keys else None,
            last_key=keys[-1] if keys else None,
            fingerprint=self.out.fingerprint,
            threads=threads,
            batch=None if self.batches is None else self.batches.size,
            skipped=dict(sorted({**plan.skipped, **failed}.items())),
        )
        published = self.expected.get(record.name)
        if published is not None and published.sha256 != record.sha256:
            raise InputError(_differs(self.out, record, published))
        lock.check()
        self.out.write_bytes(plan.name, data)
        self.out.write_bytes(plan.sidecar, record.model_dump_json(indent=1).encode())
        return record

    def _made_alike(self, plan: ShardPlan) -> tuple[bytes, list[str], dict[str, str]]:
        """As `_made`, in batches of one size: the shard's own, or the first that memory suffices for."""
        if self.batches is None:
            return self._made(plan)
        self.batches.size = self._batch(plan)
        while True:
            in_a_row = self.failures and self.failures.in_a_row
            with suppress(SmallerBatches), self.batches.alike():
                return self._made(plan)
            if self.failures is not None:
                self.failures.in_a_row = in_a_row or 0

    def _made(self, plan: ShardPlan) -> tuple[bytes, list[str], dict[str, str]]:
        """The file's bytes, the keys of the samples in it, and key → reason of those that failed."""
        collected: list[Sample] = []
        order: list[str] = []
        failed: dict[str, str] = {}
        for sample in self.produce(plan):
            if isinstance(sample, Skipped):
                order.append(sample.key)
                failed[sample.key] = sample.reason
            else:
                order.append(sample["__key__"])
                collected.append(sample)
            self._judge(sample)
            self.progress(self.done + len(order), self.total)
        if order != list(plan.keys):
            path = self.out.file(plan.name)
            raise InputError(f"{path}: made {len(order)} of {len(plan.keys)} samples; rerun to try again")
        return self.encode(collected), [key for key in order if key not in failed], failed

    def _judge(self, sample: Sample | Skipped) -> None:
        if isinstance(sample, Skipped):
            if self.failures is None:
                raise InputError(f"{sample.key}: {sample.reason}")
            self.failures.bad(sample)
        elif self.failures is not None:
            self.failures.good()

    def _batch(self, plan: ShardPlan) -> int:
        """The batch that this shard was made in, the configured one if that is unknown; of a new one the present."""
        assert self.batches is not None
        own = self.expected.get(plan.name)
        return self.batches.size if own is None else own.batch or self.batches.first

    def _threads(self, plan: ShardPlan) -> int | None:
        """The number of threads that this shard was made with, or else the rest of the artefact; None if unknown."""
        own = self.expected.get(plan.name)
        return own.threads if own is not None and own.threads is not None else self._threads_of_others

    @cached_property
    def _threads_of_others(self) -> int | None:
        others = list(self.expected.values()) or sidecars(self.out)
        return next((r.threads for r in others if r.threads and r.fingerprint == self.out.fingerprint), None)


def _differs(out: Artefact, record: FileRecord, published: FileRecord) -> str:
    threads = "" if record.threads == published.threads else f", or on another number of threads than {record.threads}"
    batch = "" if record.batch == published.batch else f", or in another batch than {record.batch}"
    return (
        f"{out.file(record.name)}: made again, it differs from the one that the manifest records, which was made on "
        f"another processor or with other versions of packages{threads}{batch}; nothing was changed; make the whole "
        f"artefact again: `dmp stage {out.stage} --force`, then `dmp run`"
    )


def finished_shard(out: Artefact, plan: ShardPlan) -> FileRecord | None:
    """The sidecar's record if the shard exists, is complete and was made for this fingerprint."""
    record = read_sidecar(out, plan.sidecar)
    if record is None or record.fingerprint != out.fingerprint:
        return None
    if not _is_of(record, plan):
        return None
    try:
        whole = out.workspace.fs.size(out.file(record.name)) == record.bytes
    except FileNotFoundError:
        return None
    return record if whole else None


def _is_of(record: FileRecord, plan: ShardPlan) -> bool:
    """Whether a sidecar describes this shard: it may have been copied or renamed together with another one."""
    if record.name != plan.name or not plan.planned:
        return record.name == plan.name
    belonging = {*plan.keys, *plan.skipped}
    return belonging.issuperset(record.ends) and plan.skipped.keys() <= record.skipped.keys()


def unfinished(out: Artefact, count: int) -> list[int]:
    """Which of its `count` shards are still to be made."""
    return [number for number in range(count) if finished_shard(out, ShardPlan(number, ())) is None]


def _tar_bytes(samples: list[Sample]) -> bytes:
    """A tar whose bytes depend only on the samples: fixed owner, mode and time."""
    import webdataset

    buffer = io.BytesIO()
    writer = webdataset.TarWriter(buffer, encoder=False, mtime=0, user="dmp", group="dmp", mode=0o644)
    for sample in samples:
        writer.write(sample)
    writer.close()
    return buffer.getvalue()


def read_shard(workspace: Workspace, path: str) -> Iterator[Sample]:
    """Samples of one tar; raises InputError that names the file if it cannot be read."""
    try:
        with workspace.fs.open(path, "rb") as stream:
            yield from _samples(stream, path)
    except FileNotFoundError:
        raise InputError(f"{path}: shard is missing; rerun the stage that makes it (`dmp run`)") from None


def _samples(stream: BinaryIO, path: str) -> Iterator[Sample]:
    from webdataset.tariterators import group_by_keys

    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for sample in group_by_keys(_members(archive)):
                key = sample["__key__"]
                if key in seen:
                    raise ValueError(f"{one_line(key)}: two samples with this key")
                seen.add(key)
                yield {name: value for name, value in sample.items() if name == "__key__" or not name.startswith("__")}
    except (tarfile.TarError, EOFError, ValueError, RecursionError, OverflowError) as error:
        reason = one_line(str(error.args[0]) if error.args else "") or type(error).__name__
        raise InputError(f"{path}: unreadable shard ({reason}); delete it and rerun: it alone is made again") from None


def _members(archive: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    """Name and bytes of every file, as webdataset groups them; its own reader skips what must be rejected here."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # or memory grows with the shard
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise ValueError(f"{one_line(member.name)} leads out of the shard")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise ValueError(f"{one_line(member.name)} is a link, a device or a sparse file")
        data = archive.extractfile(member).read()  # type: ignore[union-attr]  # a regular file
        yield {"fname": member.name, "data": data, "__url__": ""}


def read_artefact(artefact: Artefact) -> Iterator[Sample]:
    """All samples of a sharded artefact, in order."""
    read = shard_reader(artefact)
    for number in range(len(artefact.published().files)):
        yield from read(number)


def shard_reader(artefact: Artefact) -> Callable[[int], list[Sample]]:
    """Reads one shard of a finished artefact by its number, after checking its bytes against the digest."""
    files = _own_files(artefact)
    return lambda number: _read_checked(artefact, files[number])


def _own_files(artefact: Artefact) -> list[FileRecord]:
    """The shards that the manifest lists, each under its own name and with its own keys. Raises InputError."""
    files, last = artefact.published().files, ""
    for number, record in enumerate(files):
        first, end = record.ends
        # A merged dataset has no file for a shard whose samples were all omitted.
        own_name = artefact.stage == "shards" or _stem(record.name) == _stem(ShardPlan(number, ()).name)
        if not own_name or first <= last:
            raise InputError(
                f"{artefact.file('manifest.json')}: lists {one_line(record.name)} with {first or None} as shard "
                f"{number}, so another one is lost; delete this file and the .json files next to the shards, and "
                "rerun: missing shards are made again"
            )
        last = end
    return files


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _read_checked(artefact: Artefact, record: FileRecord) -> list[Sample]:
    path = artefact.file(record.name)
    data = artefact.read_bytes(record.name)
    if artefact.workspace.verify_inputs and sha256_stream(io.BytesIO(data)) != record.sha256:
        raise InputError(f"{path}: unreadable shard (its bytes have changed); delete it and rerun: it alone is redone")
    samples = list(_samples(io.BytesIO(data), path))
    keys = [sample["__key__"] for sample in samples]
    ends = ([record.first_key], [record.last_key]) if record.samples else ([], [])
    if (len(keys), keys[:1], keys[-1:]) != (record.samples, *ends):
        raise InputError(f"{path}: {_swapped(record)}")
    return samples


def _swapped(record: FileRecord) -> str:
    return (
        f"holds other samples than {record.first_key} to {record.last_key}, which its record names; delete the shard, "
        "its .json and manifest.json, and rerun: it alone is made again"
    )


def shard_plans(artefact: Artefact) -> list[ShardPlan]:
    """The shard layout of a complete artefact, for stages that keep it (labels follow images)."""
    return [
        ShardPlan(number, _keys(record), skipped=record.skipped) for number, record in enumerate(_own_files(artefact))
    ]


def _keys(record: FileRecord) -> tuple[str, ...]:
    """Keys of the samples that exist: all that belong in the shard are consecutive, some were skipped."""
    split, _, first = record.ends[0].rpartition("-")
    belonging = (sample_key(split, int(first) + offset) for offset in range(record.planned))
    return tuple(key for key in belonging if key not in record.skipped)


def open_dataset(url: str) -> Iterator[dict[str, Any]]:
    """Samples of a dataset folder (`datasets/<name>/<split>`, or a folder of such) as decoded dicts.

    Yields dicts with `__key__` and one entry per column: `png`, `normal.png`, `depth.npy`, `json` …
    Raises InputError when the folder contains no shards.
    """
    workspace = Workspace(url)
    names = [name for name in files_below(workspace.fs, workspace.root) if name.endswith(".tar")]
    paths = [f"{workspace.root}/{name}" for name in names]
    if not paths:
        raise InputError(f"{url}: no shards (*.tar) here; give a folder such as WORKSPACE/datasets/NAME/SPLIT")
    for path in paths:
        for sample in read_shard(workspace, path):
            yield {name: _decoded(path, sample["__key__"], name, value) for name, value in sample.items()}


def _decoded(path: str, key: str, name: str, value: Any) -> Any:
    try:
        return value if name == "__key__" else decode_member(name, value)
    except InputError as error:
        raise InputError(f"{path}: {one_line(f'{key}.{name}')}: {error}") from None
