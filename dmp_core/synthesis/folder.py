"""Images and labels out of a folder of one's own: decoded, brought to size, packed like generated ones."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dmp_core.config.stages import FolderImages, RuntimeConfig, Task
from dmp_core.errors import InputError
from dmp_core.evaluation.colours import IGNORED
from dmp_core.labelers.encoding import decode_label, resize
from dmp_core.labelers.exact import pack_truth
from dmp_core.store import Sample
from dmp_core.synthesis.listing import BROKEN, FORMATS, LabelFile, Listing, OwnImage, refuse
from dmp_core.synthesis.sources import Row, image_sample

Array = NDArray[Any]

_CLASSES = 150
# Codes of interpolated edges are shorter than 1; a picture that is no normal map is so nearly everywhere.
_UNIT_SLACK, _UNIT_SHARE = 0.15, 0.5


class FolderSource:
    """A split's own images, with the labels that came with them as `truth.npz`."""

    def __init__(self, settings: FolderImages, runtime: RuntimeConfig) -> None:
        self.settings = settings
        self.pool = ThreadPoolExecutor(runtime.workers)

    def __enter__(self) -> FolderSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def samples(self, rows: list[Row]) -> Iterable[Sample]:
        """See `ImageSource`. Raises InputError when a file is no longer what the prompts stage saw."""
        return self.pool.map(self._sample, rows)

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
    if column != "image":
        return resize(column, array, size)  # type: ignore[arg-type]  # `image` or a task
    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


def decode_image(data: bytes, name: str | Path) -> NDArray[np.uint8]:
    """An image file as RGB (H, W, 3), turned as its EXIF orientation says.

    Of 16 bits the upper half is kept, transparency is laid over white, of several frames the first is taken;
    colour profiles are not applied. Raises InputError that names the file when it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            rgb: NDArray[np.uint8] = np.array(_rgb(ImageOps.exif_transpose(image)))
    except BROKEN as error:
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise InputError(
            f"{name}: not a readable image ({reason}); give a whole PNG, JPEG, WebP, BMP or TIFF file"
        ) from None
    return rgb


def to_rgb(image: Image.Image, name: str | Path) -> NDArray[np.uint8]:
    """An opened image as `decode_image` gives it, and with its errors."""
    try:
        rgb: NDArray[np.uint8] = np.array(_rgb(ImageOps.exif_transpose(image)))
    except BROKEN as error:
        raise InputError(f"{name}: not a readable image ({error}); give one of 8 or 16 bits a channel") from None
    return rgb


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip at 255
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def read_label(task: Task, name: str | Path, data: bytes) -> Array:
    """A label file as `labelers.encoding` has it in memory.

    As in a dataset, and besides: depth as 16-bit PNG of millimetres, class ids as a PNG with a palette, NaN in a
    depth map as "no surface". Raises InputError that names the file and what it should hold.
    """
    try:
        label = _depth_png(data) if task == "depth" and str(name).lower().endswith(".png") else _decode(task, data)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except BROKEN as error:
        raise InputError(f"{name}: not readable ({error}); write it again") from None
    if task == "segmentation" and ((label >= _CLASSES) & (label != IGNORED)).any():
        raise InputError(f"{name}: class ids up to {label[label != IGNORED].max()}; ADE20K-150 has 0 to 149, 255: none")
    return label


def _decode(task: Task, data: bytes) -> Array:
    if task == "depth":
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if np.issubdtype(loaded.dtype, np.floating) and np.isnan(loaded).any():
            buffer = io.BytesIO()
            np.save(buffer, np.nan_to_num(loaded, nan=0, posinf=np.inf, neginf=0))
            data = buffer.getvalue()
    if task == "segmentation":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode == "P":
                return np.array(image)
    if task == "normal":
        _check_unit(data)
    return decode_label(task, data)


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


@lru_cache(maxsize=16)
def check_folder(listing: Listing) -> None:
    """Decode every image and label once. Raises one InputError that names all that cannot be used."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda image: _faults(listing.root, image), listing.images)
        refuse(problem for problems in found for problem in problems)


def _faults(root: Path, image: OwnImage) -> Sequence[str]:
    try:
        size = decode_image((root / image.file).read_bytes(), root / image.file).shape[:2]
    except InputError as error:
        return [str(error)]
    return [problem for label in image.labels if (problem := _label_fault(root, label, size))]


def _label_fault(root: Path, label: LabelFile, size: tuple[int, ...]) -> str:
    path = root / label.file
    try:
        found = read_label(label.task, path, path.read_bytes()).shape[:2]
    except InputError as error:
        return str(error)
    if found == size:
        return ""
    turned = " (the image is turned by its EXIF orientation, a label is not)" if found == size[::-1] else ""
    pixels = f"{found[1]} × {found[0]} pixels, its image {size[1]} × {size[0]}"
    return f"{path}: {pixels}; give both one size{turned}"
