"""Folders as PASCAL VOC has them: images, masks with a palette, lists of splits; any class map."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.export.dataset import Dataset, write_file

if TYPE_CHECKING:
    from dmp_core.export.registry import Options
    from dmp_core.modalities.classes import ClassMap


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """JPEGImages, SegmentationClass (class ids as the dataset's, 255: no label), ImageSets/Segmentation, labels.txt."""
    modality = dataset.class_map(options.modality)
    if modality.dtype is not np.uint8:
        raise InputError(f"--format voc: {modality.name} has {len(modality.classes)} classes; its masks have 8 bits")
    count = 0
    for split in dataset.splits:
        keys = []
        for sample in dataset.samples(split):
            write_file(folder, f"JPEGImages/{sample.key}.{sample.suffix}", sample.image)
            mask = _mask(modality.decode(sample.labels[modality.name]), modality)
            write_file(folder, f"SegmentationClass/{sample.key}.png", mask)
            keys.append(sample.key)
        write_file(folder, f"ImageSets/Segmentation/{split}.txt", "".join(f"{key}\n" for key in keys))
        count += len(keys)
    write_file(folder, "labels.txt", "".join(f"{name}\n" for name in modality.classes))
    return count


def _mask(label: np.ndarray, modality: ClassMap) -> bytes:
    """PNG with a palette, whose indices are the ids."""
    image = Image.fromarray(label)
    colours = np.full((256, 3), 224, np.uint8)  # VOC's colour of what has no label
    colours[: len(modality.classes)] = modality.display_palette
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
