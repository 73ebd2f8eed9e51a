"""Images and labels from your own folder: decoded, resized, packed like generated ones."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.dataset.truth import pack_truth
from dmp_core.errors import InputError
from dmp_core.images import MOST_PIXELS, open_rgb
from dmp_core.modalities import Modality, find_modality, modality_of
from dmp_core.runtime import RuntimeConfig
from dmp_core.store import Sample, Skipped
from dmp_core.store.attempts import first_that_works
from dmp_core.synthesis.checking import read_label
from dmp_core.synthesis.settings import FolderImages
from dmp_core.synthesis.sources import Row, image_sample

Array = NDArray[Any]
log = logging.getLogger(__name__)


class FolderSource:
    """A split's user-provided images, with their labels as `truth.npz`."""

    batches = None

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
        """See `ImageSource`. Raises InputError when a file has changed since the prompts stage read it."""
        return self.pool.map(self._sample_or_skip if self.skips else self._sample, rows)

    def _sample_or_skip(self, row: Row) -> Sample | Skipped:
        for record in (row, *json.loads(row["labels"]).values()):
            self._read(record)  # changed files are an error, and not skipped
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
            raise InputError(f"{path}: changed or removed since the run began; run again")
        return data


def fit_array(column: Modality | str, array: Array, fit: str, resolution: int | None) -> Array:
    """An image, or the label of a modality, resized according to `SplitConfig.fit`.

    column: `image` or a modality. array: (H, W[, 3]). Labels are resized with `Modality.resize`.
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


# ------------------------------------------------------------------------------------ all files
