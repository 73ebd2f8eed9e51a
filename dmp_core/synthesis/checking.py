"""Decodes every image and label of a folder once, before any work: finds unusable and doubtful files."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.images import decoding, open_rgb, opened
from dmp_core.modalities import Modality, modality_of
from dmp_core.overlap import in_threads
from dmp_core.quality import doubts, label_scores
from dmp_core.reading import read_file, shown
from dmp_core.runtime import BadSampleConfig
from dmp_core.store import Bounds, SkipCount, Skipped
from dmp_core.synthesis.own_images import SUFFIXES, Listing, OwnImage, refuse
from dmp_core.text import one_line

if TYPE_CHECKING:
    import pandas as pd


Array = NDArray[Any]
log = logging.getLogger(__name__)

# Enough pixels for scores that only warn.
_SCORED_SIDE = 256


def read_label(modality: Modality | str, name: str | Path, data: bytes) -> Array:
    """A label file as an array; see `Modality.imported` for formats accepted in addition to the dataset's own.

    Raises InputError that names the file and the expected content.
    """
    suffix = Path(name).suffix.lower()
    with decoding(name, "not readable", "write it again"):
        if suffix in SUFFIXES:
            with opened(io.BytesIO(data)):  # checks kind and size; the bytes are read again below
                pass
        return modality_of(modality).imported(data, suffix)


@lru_cache(maxsize=16)
def check_folder(listing: Listing, bounds: BadSampleConfig | None = None) -> Mapping[str, str]:
    """Decode every image and label once. Returns file → reason of every image to be skipped.

    bounds: how many images may be skipped because of their own or their labels' faults; None: none.
    Raises one InputError that names all unusable files, or the last one above the bounds.
    Usable labels that are probably invalid (metres, axes) are logged, with the likely cause.
    """
    scores: dict[str, list[dict[str, Any]]] = {}
    faults: dict[str, list[str]] = {}
    found = in_threads(partial(_checked, listing.root), listing.images)
    for image, (problems, rows) in zip(listing.images, found, strict=True):
        if problems:
            faults[image.file] = problems
            continue
        for name, row in rows.items():
            scores.setdefault(name, []).append({"key": image.file, **row})
    if bounds is None:
        refuse(problem for problems in faults.values() for problem in problems)
        skipped: Mapping[str, str] = {}
    else:
        skipped = _skipped(listing, faults, bounds)
    for line in doubts(_tables(scores), own={modality.name: modality for modality in listing.labelled}):
        log.warning("%s: warning: %s", shown(listing.root), line)
    return skipped


def _skipped(listing: Listing, faults: Mapping[str, list[str]], bounds: Bounds) -> Mapping[str, str]:
    """File → reason, without paths of this machine. Raises InputError above the bounds."""
    count = SkipCount(shown(listing.root), len(listing.images), bounds)
    for file in (image.file for image in listing.images):
        if problems := faults.get(file):
            reason = "; ".join(problem.replace(f"{shown(listing.root)}/", "") for problem in problems)
            count.bad(Skipped(file, one_line(reason.removeprefix(f"{shown(file)}: "))))
        else:
            count.good()
    return count.skipped


def check_folders(listings: Iterable[Listing], bounds: BadSampleConfig | None = None) -> None:
    """The same for several folders, and one InputError for all of them."""
    problems = []
    for listing in listings:
        try:
            check_folder(listing, bounds)
        except InputError as error:
            problems += str(error).split("\n")
    refuse(dict.fromkeys(problems))


def pixel_faults(root: Path, images: Iterable[OwnImage]) -> Iterator[str]:
    """Faults of these images' pixels and labels, one line per file."""
    for faults, _ in in_threads(partial(_checked, root), images):
        yield from faults


def _tables(scores: Mapping[str, list[dict[str, Any]]]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    return {name: pd.DataFrame(rows) for name, rows in scores.items()}


def _checked(root: Path, image: OwnImage) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The faults of an image and its labels, and the scores of the labels."""
    faults, scores = [], {}
    size: tuple[int, ...] | None = None
    try:
        size = open_rgb(root / image.file, root / image.file).shape[:2]
    except InputError as error:
        faults.append(str(error))
    for file in image.labels:
        path = root / file.file
        try:
            data = read_file(path)
            label = read_label(file.modality, path, data)
            _check_size(path, label.shape[:2], size)
            as_stored = file.modality.unrepaired(label, data)
            scores[file.modality.name] = label_scores(
                file.modality, file.modality.turned(_thinned(as_stored), file.modality.file_axes)
            )
        except InputError as error:
            faults.append(str(error))
    return faults, scores


def _thinned(label: Array) -> Array:
    step = max(1, min(label.shape[:2]) // _SCORED_SIDE)
    return label[::step, ::step]


def _check_size(path: Path, found: tuple[int, ...], size: tuple[int, ...] | None) -> None:
    if size is None or found == size:
        return
    turned = " (the image is turned by its EXIF orientation, a label is not)" if found == size[::-1] else ""
    pixels = f"{found[1]} × {found[0]} pixels, its image {size[1]} × {size[0]}"
    raise InputError(f"{shown(path)}: {pixels}; give both one size{turned}")
