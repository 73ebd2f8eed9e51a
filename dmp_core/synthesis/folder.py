"""Images and labels out of a folder of one's own: decoded, brought to size, packed like generated ones."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.attempts import first_that_works
from dmp_core.config.stages import BadSampleConfig, FolderImages, RuntimeConfig, Task
from dmp_core.errors import InputError
from dmp_core.evaluation.colours import IGNORED
from dmp_core.images import GREY_STEPS, MOST_PIXELS, decoding, open_rgb, opened, raw_mode
from dmp_core.labelers.encoding import decode_label, resize
from dmp_core.labelers.exact import pack_truth
from dmp_core.quality import doubts, label_scores
from dmp_core.reading import read_file, shown
from dmp_core.store import Bounds, Sample, SkipCount, Skipped
from dmp_core.store.members import open_image
from dmp_core.synthesis.listing import Listing, OwnImage, refuse
from dmp_core.synthesis.sources import Row, image_sample
from dmp_core.text import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FolderSource", "check_folder", "decode_image", "fit_array", "open_rgb", "read_label"]

Array = NDArray[Any]
log = logging.getLogger(__name__)

_CLASSES = 150
# Codes of interpolated edges are shorter than 1; a picture that is no normal map is so nearly everywhere.
_UNIT_SLACK, _UNIT_SHARE = 0.15, 0.5
# Pixels that suffice for scores that only warn.
_SCORED_SIDE = 256


class FolderSource:
    """A split's own images, with the labels that came with them as `truth.npz`."""

    def __init__(self, settings: FolderImages, runtime: RuntimeConfig) -> None:
        self.settings = settings
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
        sample = image_sample(row, self._fit("image", rgb), generator, source=origin)
        given: dict[Task, dict[str, str]] = json.loads(row["labels"])
        tasks = self.settings.labels
        truth = {
            task: self._fit(task, read_label(task, given[task]["file"], self._read(given[task]))) for task in tasks
        }
        return sample | ({"truth.npz": pack_truth(truth, tasks)} if tasks else {})

    def _read(self, record: Row) -> bytes:
        path = Path(self.settings.folder).expanduser() / record["file"]
        data = path.read_bytes() if path.is_file() else b""
        if sha256(data).hexdigest() != record["sha256"]:
            raise InputError(f"{path}: changed or gone since the run began; run again")
        return data

    def _fit(self, column: str, array: Array) -> Array:
        return fit_array(column, array, self.settings.fit, self.settings.resolution)


def fit_array(column: str, array: Array, fit: str, resolution: int | None) -> Array:
    """An image, or the label of a task, at the size that `SplitConfig.fit` asks for.

    column: `image` or a task. array: (H, W[, 3]). Ids and depth are never averaged.
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
            raise InputError(f"{column}: {width} × {height} pixels become {size[1]} × {size[0]}; use fit: crop")
    if column != "image":
        return resize(column, array, size)  # type: ignore[arg-type]  # `image` or a task
    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


def decode_image(data: bytes, name: str | Path) -> NDArray[np.uint8]:
    """The bytes of an image file as RGB (H, W, 3); see `dmp_core.images.open_rgb`."""
    return open_rgb(io.BytesIO(data), name)


def read_label(task: Task, name: str | Path, data: bytes) -> Array:
    """A label file as `labelers.encoding` has it in memory.

    As in a dataset, and besides: depth as 16-bit PNG of millimetres, class ids as a PNG with a palette or with grey of
    1, 2 or 4 bits, NaN in a depth map as "no surface". Raises InputError that names the file and what it should hold.
    """
    with decoding(name, "not readable", "write it again"):
        label = _decode(task, data, str(name).lower().endswith(".npy"))
        if task == "segmentation" and ((label >= _CLASSES) & (label != IGNORED)).any():
            raise InputError(f"class ids up to {label[label != IGNORED].max()}; ADE20K-150 has 0 to 149, 255: none")
    return label


def _decode(task: Task, data: bytes, array: bool) -> Array:
    if array:
        return _depth_npy(data)
    with opened(io.BytesIO(data)) as image:  # checks its kind and size; what follows reads the bytes again
        stored, mode = raw_mode(image), image.mode
    if task == "depth":
        return _depth_png(data)
    if task == "segmentation" and (mode == "P" or stored in GREY_STEPS):
        return _small_ids(data)
    if task == "normal":
        _check_unit(data)
    return decode_label(task, data)


def _depth_npy(data: bytes) -> Array:
    """A .npy file, after its header was checked: NumPy trusts the shape there, however large."""
    _check_header(data)
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    if np.isnan(loaded).any():
        buffer = io.BytesIO()
        np.save(buffer, np.nan_to_num(loaded, nan=0, posinf=np.inf, neginf=0))
        data = buffer.getvalue()
    return decode_label("depth", data)


def _check_header(data: bytes) -> None:
    if data.startswith(b"PK"):
        raise InputError("depth: an .npz archive called .npy; write one array with numpy.save")
    stream = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise InputError(f"depth: a .npy file of version {version}; write float16 metres with numpy.save")
    shape, _, dtype = readers[version](stream)
    if not np.issubdtype(dtype, np.floating):
        raise InputError(f"depth: expected metres as floats in the .npy file, found {dtype}"[:200])
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"depth: expected (H, W), found shape {shape}"[:200])
    if math.prod(shape) > MOST_PIXELS:
        raise InputError(f"depth: more than {MOST_PIXELS / 1e6:.0f} million pixels; scale it down")
    if math.prod(shape) * dtype.itemsize > len(data) - stream.tell():
        raise InputError(f"depth: the file ends before the {shape[0]} × {shape[1]} values that its header names")


def _small_ids(data: bytes) -> Array:
    """Class ids as they are stored: of a palette the index, of few bits the level, which Pillow stretches to 255."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        step = GREY_STEPS.get(raw_mode(image))
        return np.array(image) if step is None else np.array(image.convert("L")) // np.uint8(step)


def _check_unit(data: bytes) -> None:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        codes = np.asarray(image)
    if codes.ndim != 3 or codes.shape[2] != 3:
        return  # said better by decode_label
    length = np.linalg.norm(codes / 127.5 - 1, axis=-1)
    fine = (abs(length - 1) < _UNIT_SLACK) | (length < _UNIT_SLACK)
    if fine.mean() < _UNIT_SHARE:
        raise InputError(
            f"normal: only {fine.mean():.0%} of the codes are unit vectors; write 8 bits of (n + 1) / 2, and "
            "(128, 128, 128) where there is no surface"
        )


def _depth_png(data: bytes) -> Array:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if not image.mode.startswith("I"):
            raise InputError(f"depth: expected a 16-bit grey PNG of millimetres, found mode {image.mode}; or use .npy")
        return (np.asarray(image).astype(np.float64) / 1000).astype(np.float32)


# ------------------------------------------------------------------------------------ all files
@lru_cache(maxsize=16)
def check_folder(listing: Listing, bounds: BadSampleConfig | None = None) -> Mapping[str, str]:
    """Decode every image and label once. Returns file → reason of every image that is to be skipped.

    bounds: how many images may be skipped, for their own or their labels' sake; of None, none.
    Raises one InputError that names all that cannot be used, or the last one above the bounds.
    Labels that can be used but hardly are what they should be (metres, axes) are logged, with the likely cause.
    """
    scores: dict[Task, list[dict[str, Any]]] = {}
    faults: dict[str, list[str]] = {}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda image: _checked(listing.root, image), listing.images)
        for image, (problems, rows) in zip(listing.images, found, strict=True):
            faults[image.file] = problems
            for task, row in rows.items() if not problems else ():
                scores.setdefault(task, []).append({"key": image.file, **row})
    if bounds is None:
        refuse(problem for problems in faults.values() for problem in problems)
        skipped: Mapping[str, str] = {}
    else:
        skipped = _skipped(listing.root, faults, bounds)
    for line in doubts(_tables(scores)):
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


def _tables(scores: Mapping[Task, list[dict[str, Any]]]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    return {task: pd.DataFrame(rows) for task, rows in scores.items()}


def _checked(root: Path, image: OwnImage) -> tuple[list[str], dict[Task, dict[str, Any]]]:
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
            label = read_label(file.task, path, data)
            _check_size(path, label.shape[:2], size)
            scores[file.task] = label_scores(file.task, _thinned(_stored(file.task, data, label)))
        except InputError as error:
            faults.append(str(error))
    return faults, scores


def _stored(task: Task, data: bytes, label: Array) -> Array:
    """Normals as they are in the file: reading makes them unit vectors, and whether they are is a score."""
    return np.asarray(open_image(data, ("PNG",))) / 127.5 - 1 if task == "normal" else label


def _thinned(label: Array) -> Array:
    step = max(1, min(label.shape[:2]) // _SCORED_SIDE)
    return label[::step, ::step]


def _check_size(path: Path, found: tuple[int, ...], size: tuple[int, ...] | None) -> None:
    if size is None or found == size:
        return
    turned = " (the image is turned by its EXIF orientation, a label is not)" if found == size[::-1] else ""
    pixels = f"{found[1]} × {found[0]} pixels, its image {size[1]} × {size[0]}"
    raise InputError(f"{shown(path)}: {pixels}; give both one size{turned}")
