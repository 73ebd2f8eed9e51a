"""A finished dataset as formats read it: its splits, modalities and samples. Gates have left out what they do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.errors import InputError
from dmp_core.modalities import Modality
from dmp_core.modalities.classes import ClassMap
from dmp_core.modalities.registry import modalities_of
from dmp_core.store import Artefact, Manifest, Workspace, open_image, read_artefact, shard_reader
from dmp_core.store import Sample as Members
from dmp_core.store.folders import names_in
from dmp_core.store.workspace import read_manifest
from dmp_core.text import did_you_mean, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Sample:
    """One sample of the dataset."""

    key: str
    split: str
    image: bytes
    suffix: str
    """Of the image's file: `png` or `jpg`."""
    record: Mapping[str, Any]
    """Its json."""
    labels: Mapping[str, bytes]
    """Modality → the label as the dataset stores it."""

    @property
    def rgb(self) -> NDArray[np.uint8]:
        return np.asarray(open_image(self.image).convert("RGB"))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return open_image(self.image).size


@dataclass(frozen=True)
class Part:
    """Shards of a split, each read by its number: the members of its samples."""

    shards: int
    read: Callable[[int], Iterable[Members]]


@dataclass(frozen=True)
class Dataset:
    """splits: split → its folder and parts, in order; modalities: those of which samples have labels."""

    name: str
    splits: Mapping[str, Sequence[Artefact]]
    modalities: Sequence[Modality]

    def samples(self, split: str) -> Iterator[Sample]:
        """In the order of the keys, part by part; every shard's bytes are compared with its digest."""
        for part in self.parts(split):
            for number in range(part.shards):
                for members in part.read(number):
                    yield self.sample(members, split)

    def parts(self, split: str) -> Iterator[Part]:
        """In the order of their making."""
        for artefact in self.splits[split]:
            yield Part(len(artefact.published().files), shard_reader(artefact))

    def sample(self, members: Members, split: str) -> Sample:
        suffix = "png" if "png" in members else "jpg"
        labels = {one.name: members[one.member] for one in self.modalities}
        record = json.loads(members["json"])
        return Sample(members["__key__"], split, members[suffix], suffix, record, labels)

    def class_map(self, name: str | None) -> ClassMap:
        """The modality with classes, by name, or the only one. Raises InputError otherwise."""
        found = [one for one in self.modalities if isinstance(one, ClassMap) and name in (None, one.name)]
        return self._only(found, "class maps", name)

    def of_kind(self, name: str | None, fits: Callable[[Modality], bool], what: str) -> Modality:
        """The modality that fits, by name, or the only one. Raises InputError otherwise."""
        return self._only([one for one in self.modalities if fits(one) and name in (None, one.name)], what, name)

    def check_name(self, name: str) -> None:
        """Raises InputError if no label has this name."""
        known = [one.name for one in self.modalities]
        if name not in known:
            raise InputError(f"--modality {name}: {self._labels()}{did_you_mean(name, known)}")

    def _only(self, found: Sequence[Any], what: str, name: str | None) -> Any:
        if len(found) == 1:
            return found[0]
        if not found:
            wrong = f"--modality {name}: not" if name else "this format needs"
            raise InputError(f"{wrong} {what}; {self._labels()}")
        raise InputError(f"--modality: {what} are {', '.join(one.name for one in found)}; name one")

    def _labels(self) -> str:
        known = ", ".join(one.name for one in self.modalities)
        return f"the labels of {self.name} are {known}" if known else f"{self.name} has no labels, only images"


def open_finished(path: str, splits: Sequence[str] = ()) -> Dataset:
    """The dataset of a folder `WORKSPACE/datasets/NAME`, or of one of its splits.

    splits: those to read; empty: all. Raises InputError where nothing is finished, and for an unknown split.
    """
    place = Workspace(path)
    fs, root = place.fs, place.root
    folders = [root] if fs.exists(f"{root}/manifest.json") else [f"{root}/{name}" for name in names_in(fs, root)]
    manifests = {
        folder: read_manifest(place, f"{folder}/manifest.json")
        for folder in folders
        if fs.exists(f"{folder}/manifest.json")
    }
    datasets = {folder: manifest for folder, manifest in manifests.items() if manifest.stage == "shards"}
    if not datasets:
        raise InputError(
            f"{path}: no finished dataset here; give WORKSPACE/datasets/NAME, or make one: dmp dataset new"
        )
    by_split: dict[str, list[Artefact]] = {}
    for folder, manifest in sorted(datasets.items(), key=lambda item: (item[1].created, item[0])):
        here = Workspace(place.address(folder))
        artefact = Artefact(here, manifest.stage, manifest.name, manifest.fingerprint, here.root)
        name = str(manifest.config["split"])
        if not _NAME.fullmatch(name):  # it becomes a file's name
            raise InputError(f"{folder}/manifest.json: {one_line(name)!r} is no split's name; make the dataset again")
        by_split.setdefault(name, []).append(artefact)
    if unknown := set(splits) - by_split.keys():
        raise InputError(f"--split {min(unknown)}: {path} has {', '.join(sorted(by_split))}")
    chosen = {split: by_split[split] for split in sorted(splits or by_split)}
    one = next(iter(datasets.values()))
    return Dataset(str(one.config["dataset"]), chosen, _labelled(list(datasets.values()), chosen))


def _labelled(manifests: Sequence[Manifest], splits: Mapping[str, Sequence[Artefact]]) -> list[Modality]:
    """The modalities whose members every sample has: the splits of a dataset may differ."""
    known = {one.name: one for manifest in manifests for one in modalities_of(manifest.config)}
    first = [next(read_artefact(artefact)) for artefacts in splits.values() for artefact in artefacts]
    return [one for one in known.values() if all(one.member in members for members in first)]


def write_file(folder: Path, name: str, data: bytes | str) -> None:
    """Write a file below the export's folder, which is new."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)
