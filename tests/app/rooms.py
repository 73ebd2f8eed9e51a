"""Datasets of box rooms with five labels each, made in seconds; `spoilt` have a label that cannot be right."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.modalities import BUILT_IN, find_modality
from tests.making import DATA, make
from tests.report.rooms import room


def write_rooms(
    folder: Path,
    count: int,
    *,
    blank: Collection[int] = (),
    broken: Collection[int] = (),
    spoilt: Collection[int] = (),
    size: int = 32,
) -> None:
    """NAME.png and five label files per room. blank: images of one colour; broken: unreadable; spoilt: deep noise."""
    folder.mkdir(parents=True)
    for index in range(count):
        made, stem = room(index, size), folder / f"{index:04d}"
        rgb = np.full_like(made["rgb"], 90) if index in blank else made["rgb"]
        Image.fromarray(rgb).save(f"{stem}.png")
        if index in broken:
            Path(f"{stem}.png").write_bytes(Path(f"{stem}.png").read_bytes()[:20])
        if index in spoilt:
            made["depth"] = np.random.default_rng(index).uniform(20, 90, (size, size))
        for name in BUILT_IN:
            modality = find_modality(name)
            array = made[name].astype(np.uint8 if name == "segmentation" else np.float32)
            Path(f"{stem}.{modality.member}").write_bytes(modality.encode(array))


def configuration(folder: Path, *more: str) -> PipelineConfig:
    """The folder's rooms as the split `train` of dataset `rooms`."""
    values = load_config("smoke", None, ["dataset=rooms", *more]).model_dump(mode="json")
    values["splits"] = {"train": {"folder": str(folder), "fit": "keep"}}
    values["modalities"] = list(BUILT_IN)
    return validate(values, "test")


def dataset_of(config: PipelineConfig, workspace: Path) -> Path:
    """The folder of the finished dataset."""
    make(workspace, config, DATA)
    return workspace / "datasets" / "rooms"
