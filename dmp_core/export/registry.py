"""The formats by name, and the one way to write them: into a folder that did not exist."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from dmp_core.errors import InputError
from dmp_core.export.dataset import Dataset
from dmp_core.text import did_you_mean


@dataclass(frozen=True)
class Options:
    """What a format may need to know; each reads what concerns it."""

    modality: str | None = None
    """For formats with one kind of label; None: the only one that fits."""
    fov: float | None = None
    """Horizontal field of view in degrees; None: as each sample's record states."""


FORMATS = {
    "voc": "dmp_core.export.voc",
    "coco": "dmp_core.export.coco",
    "yolo": "dmp_core.export.yolo",
    "parquet": "dmp_core.export.parquet",
    "imagefolder": "dmp_core.export.imagefolder",
    "png16": "dmp_core.export.png16",
    "ply": "dmp_core.export.ply",
}
"""Name → module with `write(dataset, folder, options)`, which returns the number of samples."""

_ALL_LABELS = ("parquet", "imagefolder")

Write = Callable[[Dataset, Path, Options], int]


def export(dataset: Dataset, name: str, out: Path, options: Options) -> int:
    """Write a dataset in a format; returns the number of samples.

    out: a folder that does not exist, or is empty; it appears when all is written. Raises InputError otherwise, and for
    an unknown format.
    """
    if name not in FORMATS:
        raise InputError(f"--format {name}: unknown; choose one of: {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}")
    if os.path.lexists(out) and (not out.is_dir() or out.is_symlink() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists, and is not an empty folder; choose another one, nothing is overwritten")
    if options.modality is not None:
        dataset.check_name(options.modality)
        if name in _ALL_LABELS:
            raise InputError(f"--modality {options.modality}: {name} contains all labels; leave it out")
    write: Write = import_module(FORMATS[name]).write
    place = out.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    scratch.mkdir()
    try:
        count = write(dataset, scratch, options)
        if place.is_dir():
            place.rmdir()  # it is empty, or this fails
        scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return count
