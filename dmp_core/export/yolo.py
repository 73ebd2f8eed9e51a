"""YOLO segmentation: a text file per image with the polygons of its classes, and data.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from dmp_core.export.dataset import Dataset, write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmp_core.export.registry import Options
    from dmp_core.modalities.classes import ClassMap

_ROLES = {"train": "train", "val": "in_domain", "test": "out_of_domain"}
"""YOLO's names → ours."""


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """images/SPLIT/KEY.png, labels/SPLIT/KEY.txt (a line per region of a class), data.yaml; ids as the dataset's.

    An image without a labelled pixel has an empty file, as YOLO's backgrounds.
    """
    modality = dataset.class_map(options.modality)
    count = 0
    for split in dataset.splits:
        for sample in dataset.samples(split):
            write_file(folder, f"images/{split}/{sample.key}.{sample.suffix}", sample.image)
            lines = _lines(modality.decode(sample.labels[modality.name]), modality)
            write_file(folder, f"labels/{split}/{sample.key}.txt", "".join(f"{line}\n" for line in lines))
            count += 1
    about = {"path": "."} | _splits(list(dataset.splits)) | {"names": dict(enumerate(modality.classes))}
    write_file(folder, "data.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
    return count


def _splits(names: Sequence[str]) -> dict[str, str]:
    """YOLO needs `train` and `val`: where one is missing, the first other split, so that the file opens."""
    roles = {role: name for role, name in _ROLES.items() if name in names}
    for role in ("train", "val"):
        roles.setdefault(role, next((name for name in names if name not in roles.values()), names[0]))
    return {role: f"images/{roles[role]}" for role in _ROLES if role in roles} | {
        name: f"images/{name}" for name in names if name not in roles.values()
    }


def _lines(label: NDArray[Any], modality: ClassMap) -> Iterator[str]:
    """`class x y x y …`, of the image's size, per connected region."""
    height, width = label.shape
    for number in modality.classes_in(label) or []:
        for polygon in polygons(label == number):
            yield f"{number} " + " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in polygon)


def polygons(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """(N, 2) points x, y in pixels per region; the middle of a pixel is inside exactly if its mask is set.

    The format has one ring per line, so a seam leads to each hole and back (rule: even and odd).
    """
    from contourpy import FillType, contour_generator

    height, width = mask.shape
    columns, rows = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5  # a border of pixels not set
    found = contour_generator(columns, rows, np.pad(mask, 1).astype(float), fill_type=FillType.OuterOffset)
    for points, offsets in zip(*found.filled(0.5, 2.0), strict=True):
        outer, *holes = (points[start:end] for start, end in pairwise(offsets))
        yield np.concatenate([outer, *(part for hole in holes for part in (hole, outer[:1]))])
