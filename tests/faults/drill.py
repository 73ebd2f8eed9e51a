"""Run with `faults.c` loaded: `python -m tests.faults.drill FOLDER [all]`.

Each write of a small DAG fails, once or from then on: in turn in one of three ways, or in all. Every error
must name a path and leave nothing half done, and the next run must end in the bytes of the undisturbed one. Prints a
line per kind: `ENOSPC once: 45 writes`.
"""

from __future__ import annotations

import errno
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file

from dmp_core.stages.registry import kind_of
from dmp_core.store import (
    Artefact,
    Lock,
    Manifest,
    Sample,
    ShardPlan,
    Workspace,
    plan_shards,
    record_files,
    staged_folder,
    write_shards,
)
from dmp_core.store.files import DISK_ERRORS
from dmp_core.store.folders import mirror
from tests.faults import Faults

KEYS = [f"train-{number:08d}" for number in range(4)]
SHORT = [(errno.ENOSPC, True), (errno.EIO, False), (errno.EROFS, True)]
ALL = [(error, lasting) for error in sorted(DISK_ERRORS) for lasting in (False, True)]


def produce(plan: ShardPlan) -> Iterator[Sample]:
    for key in plan.keys:
        yield {"__key__": key, "txt": key.encode()}


def make(root: Path) -> None:
    """Shards, then a folder that other libraries fill, then a file next to it; each under its lock, as in stages."""
    place = Workspace(root)
    shards = kind_of("images").artefact(place, "train", "0" * 12)
    if shards.manifest() is None:
        publish(shards, write_shards(shards, plan_shards(KEYS, 2), produce))
    folder = kind_of("train").artefact(place, "normal", "1" * 12)
    with Lock(place, "train-normal") as lock:
        lock.wait()
        if folder.manifest() is None:
            with staged_folder(folder) as scratch:
                fill(scratch)
            lock.check()
            publish(folder)
    remake(shards)
    mirror(place.fs, folder.path, f"{root}/report")
    place.write_bytes(f"{root}/datasets/rooms", "README.md", b"card")


def remake(out: Artefact) -> None:
    """As `--force` does: the old one stays until the new one is complete."""
    beside = out.again({})
    if beside.manifest() is None:
        publish(beside, write_shards(beside, plan_shards(KEYS, 2), produce))
    out.take_place(beside)


def fill(scratch: Path) -> None:
    save_file({"a": np.zeros(4, np.float32)}, scratch / "adapter.safetensors")
    pd.DataFrame({"a": [1]}).to_parquet(scratch / "scores.parquet")
    (scratch / ".work").mkdir(exist_ok=True)
    with (scratch / ".work" / "step.pt").open("wb") as stream:
        torch.save({"a": torch.zeros(2)}, stream)
    shutil.copyfile(scratch / "scores.parquet", scratch / "copy.parquet")
    (scratch / "metrics.json").write_text("{}")


def publish(out: Artefact, files: list | None = None) -> None:
    files = record_files(out) if files is None else files
    manifest = Manifest(
        stage=out.stage, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={},
        files=files, samples=4, seconds=0.0, created="now",
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def differences(root: Path, right: dict[str, bytes]) -> list[str]:
    found = contents(root)
    return sorted(name for name in found.keys() | right.keys() if found.get(name) != right.get(name))


def drill(
    root: Path, right: dict[str, bytes], faults: Faults, error: int, lasting: bool, numbers: Iterable[int]
) -> int:
    """Let each of these writes fail; returns their number."""
    for tried, number in enumerate(numbers):
        shutil.rmtree(root, ignore_errors=True)
        faults.arm(number, error, lasting)
        try:
            make(root)
        except OSError as error_raised:
            faults.disarm()
            check(root, right, error_raised, error)
            make(root)
        else:
            if faults.disarm() < number:
                return tried
        assert not differences(root, right), (number, differences(root, right))
    raise AssertionError


def check(root: Path, right: dict[str, bytes], raised: OSError, error: int) -> None:
    """The error states what and where; no temporary file, no lock, and no damaged file is left."""
    assert raised.errno == error, raised
    assert raised.filename is not None, raised
    hidden = (".scratch/", "images/.")  # work to be resumed
    published = {name: data for name, data in contents(root).items() if not name.startswith(hidden)}
    wrong = [name for name, data in published.items() if right.get(name) != data]
    assert not wrong, (raised, wrong)


def main(root: Path, every: bool) -> None:
    logging.disable(logging.WARNING)
    faults = Faults()
    shutil.rmtree(root, ignore_errors=True)
    make(root)
    right = contents(root)
    ways = ALL if every else SHORT
    for first, (error, lasting) in enumerate(ways, start=1):
        numbers = count(1) if every else count(first, len(ways))
        tried = drill(root, right, faults, error, lasting, numbers)
        sys.stdout.write(f"{errno.errorcode[error]} {'for good' if lasting else 'once'}: {tried} writes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), every=sys.argv[2:] == ["all"])
