"""Scalar maps as grey PNGs of 16 bits: depth in millimetres; unit, scale and offset are in each file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmp_core.export.dataset import Dataset, write_file
from dmp_core.modalities import Modality
from dmp_core.modalities.scalar import ScalarMap

if TYPE_CHECKING:
    from dmp_core.export.registry import Options


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """image/SPLIT/KEY.png and depth/SPLIT/KEY.png, or another modality's name."""
    modality = dataset.of_kind(options.modality, _has_numbers, "scalar maps in .npy")
    assert isinstance(modality, ScalarMap)
    count = 0
    for split in dataset.splits:
        for sample in dataset.samples(split):
            write_file(folder, f"image/{split}/{sample.key}.{sample.suffix}", sample.image)
            label = modality.decode(sample.labels[modality.name])
            write_file(folder, f"{modality.name}/{split}/{sample.key}.png", modality.png16(label))
            count += 1
    return count


def _has_numbers(modality: Modality) -> bool:
    return isinstance(modality, ScalarMap) and not modality.is_png
