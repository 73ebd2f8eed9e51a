"""Hugging Face's ImageFolder: a folder per split with images, label images and metadata.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.export.croissant import TEXT, write_croissant
from dmp_core.export.dataset import Dataset, Sample, write_file
from dmp_core.modalities import Modality
from dmp_core.modalities.scalar import ScalarMap

if TYPE_CHECKING:
    from dmp_core.export.registry import Options


_TEXTS = ("key", "prompt", "keyword")


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """SPLIT/KEY.png, SPLIT/KEY.normal.png …; maps in .npy become PNGs of 16 bits, see `ScalarMap.png16`.

    croissant.json describes metadata.jsonl, whose records name the files in its folder.
    """
    count = 0
    for split in dataset.splits:
        lines = [json.dumps(_entry(sample, dataset, folder), ensure_ascii=False) for sample in dataset.samples(split)]
        write_file(folder, f"{split}/metadata.jsonl", "".join(f"{line}\n" for line in lines))
        count += len(lines)
    names = ["file_name", *(f"{modality.name}_file_name" for modality in dataset.modalities), *_TEXTS]
    tables = {split: f"{split}/metadata.jsonl" for split in dataset.splits}
    write_croissant(dataset, folder, tables, "application/jsonlines", dict.fromkeys(names, TEXT))
    return count


def _entry(sample: Sample, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """The sample's line; writes its files."""
    entry = {"file_name": f"{sample.key}.{sample.suffix}"}
    write_file(folder, f"{sample.split}/{entry['file_name']}", sample.image)
    for modality in dataset.modalities:
        name = f"{sample.key}.{modality.word}.png"
        write_file(folder, f"{sample.split}/{name}", _png(modality, sample.labels[modality.name]))
        entry[f"{modality.name}_file_name"] = name
    return entry | {name: sample.record[name] for name in _TEXTS}


def _png(modality: Modality, data: bytes) -> bytes:
    if isinstance(modality, ScalarMap) and not modality.is_png:
        return modality.png16(modality.decode(data))
    return data
