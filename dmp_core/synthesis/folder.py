"""Images and labels out of a folder of one's own: decoded, brought to size, packed like generated ones."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.dataset.truth import pack_truth
from dmp_core.errors import InputError
from dmp_core.images import MOST_PIXELS, decoding, open_rgb, opened
from dmp_core.modalities import Modality, find_modality, modality_of
from dmp_core.quality import doubts, label_scores
from dmp_core.reading import read_file, shown
from dmp_core.runtime import BadSampleConfig, RuntimeConfig
from dmp_core.store import Bounds, Sample, SkipCount, Skipped
from dmp_core.store.attempts import first_that_works
from dmp_core.synthesis.listing import SUFFIXES, Listing, OwnImage, refuse
from dmp_core.synthesis.settings import FolderImages
from dmp_core.synthesis.sources import Row, image_sample
from dmp_core.text import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FolderSource", "check_folder", "decode_image", "fit_array", "open_rgb", "read_label"]

Array = NDArray[Any]
log = logging.getLogger(__name__)

# Pixels that suffice for scores that only warn.
_SCORED_SIDE = 256


class FolderSource:
    """A split's own images, with the labels that came with them as `truth.npz`."""

    def __init__(self, settings: FolderImages, runtime: RuntimeConfig) -> None:
        self.settings = settings
        self.modalities = [find_modality(name, settings.own_modalities.get(name)) for name in settings.labels]
        self.skips = runtime.on_bad_sample.skips
        self.pool = ThreadPoolExecutor(runtime.workers)

    def __enter__(self) -> FolderSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def samples(self, rows: list[Row]) -> Iterable[Sample | Skipped]:
        """See `ImageSource`. Raises InputError when a file is no longer what the prompts stage saw."""
        return self.pool.map(self._sample_or_skip if self.skips else self._sample, rows)

    def _sample_or_skip(self, row: Row) -> Sample | Skipped:
        for record in (row, *json.loads(row["labels"]).values()):
            self._read(record)  # files that have changed are for the user to look at
        return first_that_works(row["key"], [partial(self._sample, row)] * 2)

    def _sample(self, row: Row) -> Sample:
        rgb = decode_image(self._read(row), row["file"])
        origin = {"file": row["file"], "sha256": row["sha256"], "height": rgb.shape[0], "width": rgb.shape[1]}
        generator = self.settings.model_dump(mode="json")
        fit, resolution = self.settings.fit, self.settings.resolution
        sample = image_sample(row, fit_array("image", rgb, fit, resolution), generator, source=origin)
        given: dict[str, dict[str, str]] = json.loads(row["labels"])
        truth = {}
        for one in self.modalities:
            label = read_label(one, given[one.name]["file"], self._read(given[one.name]))
            truth[one.name] = fit_array(one, label, fit, resolution)
        return sample | ({"truth.npz": pack_truth(truth, self.modalities)} if truth else {})

    def _read(self, record: Row) -> bytes:
        path = Path(self.settings.folder).expanduser() / record["file"]
        data = path.read_bytes() if path.is_file() else b""
        if sha256(data).hexdigest() != record["sha256"]:
            raise InputError(f"{path}: changed or gone since the run began; run again")
        return data


def fit_array(column: Modality | str, array: Array, fit: str, resolution: int | None) -> Array:
    """An image, or the label of a modality, at the size that `SplitConfig.fit` asks for.

    column: `image` or a modality. array: (H, W[, 3]). Labels are resized as `Modality.resize` says.
    """
    if fit == "keep" or resolution is None:
        return array
    height, width = array.shape[:2]
    side = min(height, width)
    if fit == "crop":
        top, left = (height - side) // 2, (width - side) // 2
        array = array[top : top + side, left : left + side]
        size = resolution, resolution
    else:
        size = round(height * resolution / side), round(width * resolution / side)
        if size[0] * size[1] > MOST_PIXELS:
            name = column if isinstance(column, str) else column.name
            raise InputError(f"{name}: {width} × {height} pixels become {size[1]} × {size[0]}; use fit: crop")
    if column != "image":
        return modality_of(column).resize(array, size)
    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


def decode_image(data: bytes, name: str | Path) -> NDArray[np.uint8]:
    """The bytes of an image file as RGB (H, W, 3); see `dmp_core.images.open_rgb`."""
    return open_rgb(io.BytesIO(data), name)


def read_label(modality: Modality | str, name: str | Path, data: bytes) -> Array:
    """A label file as it is in memory; see `Modality.imported` for what it may hold besides what a dataset does.

    Raises InputError that names the file and what it should hold.
    """
    suffix = Path(name).suffix.lower()
    with decoding(name, "not readable", "write it again"):
        if suffix in SUFFIXES:
            with opened(io.BytesIO(data)):  # checks its kind and size; what follows reads the bytes again
                pass
        return modality_of(modality).imported(data, suffix)


# ------------------------------------------------------------------------------------ all files
@lru_cache(maxsize=16)
def check_folder(listing: Listing, bounds: BadSampleConfig | None = None) -> Mapping[str, str]:
    """Decode every image and label once. Returns file → reason of every image that is to be skipped.

    bounds: how many images may be skipped, for their own or their labels' sake; of None, none.
    Raises one InputError that names all that cannot be used, or the last one above the bounds.
    Labels that can be used but hardly are what they should be (metres, axes) are logged, with the likely cause.
    """
    scores: dict[str, list[dict[str, Any]]] = {}
    faults: dict[str, list[str]] = {}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda image: _checked(listing.root, image), listing.images)
        for image, (problems, rows) in zip(listing.images, found, strict=True):
            faults[image.file] = problems
            for name, row in rows.items() if not problems else ():
                scores.setdefault(name, []).append({"key": image.file, **row})
    if bounds is None:
        refuse(problem for problems in faults.values() for problem in problems)
        skipped: Mapping[str, str] = {}
    else:
        skipped = _skipped(listing.root, faults, bounds)
    for line in doubts(_tables(scores), own={modality.name: modality for modality in listing.labelled}):
        log.warning("%s: warning: %s", shown(listing.root), line)
    return skipped


def _skipped(root: Path, faults: Mapping[str, list[str]], bounds: Bounds) -> Mapping[str, str]:
    """File → reason, which names no folder of this machine. Raises InputError above the bounds."""
    count = SkipCount(shown(root), len(faults), bounds)
    for file, problems in faults.items():
        if problems:
            reason = "; ".join(problem.replace(f"{shown(root)}/", "") for problem in problems)
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
    """What is wrong with these images' pixels and labels, one line per file."""
    with ThreadPoolExecutor() as pool:
        for faults, _ in pool.map(lambda image: _checked(root, image), images):
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
