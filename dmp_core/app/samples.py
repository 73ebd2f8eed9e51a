"""What there is to browse: the samples of a dataset or of a folder of predictions, each read when it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.export.dataset import Dataset, Part, Sample, open_finished
from dmp_core.images import open_rgb
from dmp_core.modalities import Modality, find_modality, modality_names
from dmp_core.quality import label_scores
from dmp_core.quality.tables import FAILED
from dmp_core.reading import read_file
from dmp_core.requests.predict_files import find_images
from dmp_core.requests.rejects import SUFFIX, WithRejects, is_rejects, open_with_rejects
from dmp_core.store import Workspace, read_npy
from dmp_core.store.folders import names_in

Array = NDArray[Any]
_VIEW, _LABEL, _APART = ".view.png", ".pred", "uncertainty"
_UNKNOWN = -9999  # of numbers in a dataset's records


@dataclass(frozen=True)
class Entry:
    """One sample as filters see it."""

    key: str
    split: str = ""
    keyword: str = ""
    prompt: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the image by their names (`std`), of labels with the modality's (`depth.far`)."""
    gate: str = ""
    """That left it out, or `failed`; empty: it is in the dataset."""
    reason: str = ""
    place: Any = None
    """Where its arrays are; None: there are none."""


@dataclass(frozen=True)
class Shown:
    """One sample's images, uint8 (H, W, 3)."""

    image: Array | None
    """None where only predictions are at hand."""
    maps: Mapping[str, Array]
    """Modality → its label, rendered."""


@dataclass(frozen=True)
class Collection:
    """Samples that are browsed together."""

    name: str
    entries: Sequence[Entry]
    show: Callable[[Entry], Shown]
    rejects: tuple[Workspace, str]
    """Place and folder of its `rejects.txt`."""
    notice: str = ""
    """What could not be opened, and why."""


def find_collections(folder: str | None, workspace: str | None) -> dict[str, str]:
    """Name → address of all that can be browsed: every dataset of a workspace, or what one folder contains.

    Raises InputError if there is nothing.
    """
    found: dict[str, str] = {}
    if workspace is not None:
        place = Workspace(workspace)
        datasets = f"{place.root}/datasets"
        for name in names_in(place.fs, datasets):
            splits = names_in(place.fs, f"{datasets}/{name}")
            if any(place.fs.exists(f"{datasets}/{name}/{split}/manifest.json") for split in splits):
                found[name] = place.address(f"{datasets}/{name}")
        if not found:
            raise InputError(f"--workspace {workspace}: no finished dataset in it; make one: dmp dataset new")
    if folder is not None:
        found[folder.rstrip("/").rpartition("/")[2] or folder] = folder
    return found


def open_collection(address: str, images: Path | None = None) -> Collection:
    """A dataset with all its splits, one of them, `SPLIT.rejects`, or a folder of predictions.

    images: folder of the images that predictions were made of; by default the predictions' own.
    Raises InputError if it is none of these.
    """
    folder = Path(address)
    if folder.is_dir() and next(folder.rglob(f"*{_VIEW}"), None) is not None:
        return _predictions(folder, images or folder)
    return _dataset(address)


# ------------------------------------------------------------------------------------ datasets
def _dataset(address: str) -> Collection:
    dataset, notice = _opened(address)
    parts = {split: list(dataset.parts(split)) for split in dataset.splits}

    @lru_cache(maxsize=2)  # a shard may take a gigabyte; the next sample is mostly in the same one
    def shard(split: str, part: int, number: int) -> dict[str, Any]:
        return {members["__key__"]: members for members in parts[split][part].read(number)}

    def show(entry: Entry) -> Shown:
        if entry.place is None:
            return Shown(None, {})
        sample = dataset.sample(shard(*entry.place)[entry.key], entry.split)
        maps = {one.name: one.colourise(one.decode(sample.labels[one.name])) for one in dataset.modalities}
        return Shown(sample.rgb, maps)

    entries = [entry for split, each in parts.items() for entry in _entries(dataset, split, each)]
    entries += _failed(dataset)
    entries.sort(key=lambda entry: entry.key)
    place = Workspace(address.rstrip("/").removesuffix(SUFFIX))
    root = place.root if not place.fs.exists(f"{place.root}/manifest.json") else place.root.rpartition("/")[0]
    return Collection(dataset.name, entries, show, (place, root), notice)


def _opened(address: str) -> tuple[Dataset, str]:
    """The dataset with what was left out of each split, if the workspace has that; else why it has not."""
    if is_rejects(address):
        return open_with_rejects(address), ""
    plain = open_finished(address)
    splits = list(plain.splits)
    try:
        return open_with_rejects(address, [*splits, *(f"{split}{SUFFIX}" for split in splits)]), ""
    except InputError as error:
        return plain, f"Samples that gates left out are not shown: {error}"


def _entries(dataset: Dataset, split: str, parts: Sequence[Part]) -> Iterator[Entry]:
    for part, shards in enumerate(parts):
        for number in range(shards.shards):
            for members in shards.read(number):
                yield _entry(dataset.sample(members, split), (split, part, number))


def _entry(sample: Sample, place: tuple[str, int, int]) -> Entry:
    record = sample.record
    why = record.get("rejected", {})
    return Entry(
        key=sample.key,
        split=sample.split.removesuffix(SUFFIX),
        keyword=str(record.get("keyword", "")),
        prompt=str(record.get("prompt", "")),
        scores=flat_scores(record.get("quality", {})),
        gate=why.get("gate", ""),
        reason=why.get("reason", ""),
        place=place,
    )


def _failed(dataset: Dataset) -> Iterator[Entry]:
    """Samples without an image or label."""
    for split, views in (dataset.views if isinstance(dataset, WithRejects) else {}).items():
        for reject in (reject for view in views for reject in view.rejects.values() if reject.gate == FAILED):
            yield Entry(reject.key, split.removesuffix(SUFFIX), gate=reject.gate, reason=reject.reason)


def flat_scores(quality: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """A record's scores as numbers by name; missing ones and texts are left out."""
    return {
        score if table == "image" else f"{table}.{score}": float(value)
        for table, scores in quality.items()
        for score, value in scores.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value != _UNKNOWN
    }


# --------------------------------------------------------------------------------- predictions
def _predictions(folder: Path, images: Path) -> Collection:
    """What `dmp predict` wrote: NAME.MODALITY.view.png and NAME.WORD.pred.SUFFIX."""
    views: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.rglob(f"*{_VIEW}")):
        stem, _, modality = file.relative_to(folder).as_posix().removesuffix(_VIEW).rpartition(".")
        if modality == _APART:
            stem, _, of = stem.rpartition(".")
            modality = f"{of} {_APART}"
        views.setdefault(stem, {})[modality] = file
    known = [find_modality(name) for name in modality_names()]
    originals = _originals(images, folder, known)

    def show(entry: Entry) -> Shown:
        image = originals.get(entry.key)
        rgb = None if image is None else open_rgb(image, image)
        return Shown(rgb, {name: open_rgb(file, file) for name, file in views[entry.key].items()})

    entries = [Entry(key, scores=_prediction_scores(folder / key, known), place=key) for key in sorted(views)]
    place = Workspace(folder)
    return Collection(folder.name, entries, show, (place, place.root))


def _originals(images: Path, folder: Path, known: Sequence[Modality]) -> dict[str, Path]:
    """Stem of the results → the image; empty if there are no images."""
    try:
        found = find_images([images], folder, known)
    except InputError:
        return {}
    return {stem.as_posix(): image for image, stem in found.items()}


def _prediction_scores(stem: Path, known: Sequence[Modality]) -> dict[str, float]:
    """The scores that labels have, and the mean uncertainty of each modality."""
    quality: dict[str, dict[str, Any]] = {}
    for modality in known:
        word, _, suffix = modality.member.partition(".")
        label, apart = (
            stem.with_name(f"{stem.name}.{end}")
            for end in (f"{word}{_LABEL}.{suffix}", f"{modality.name}.{_APART}{_LABEL}.npy")
        )
        if label.is_file():
            quality[modality.name] = label_scores(modality, modality.stored(label.read_bytes()))
        if apart.is_file():
            values = read_npy(read_file(apart)).astype(np.float64)
            quality.setdefault(modality.name, {})[_APART] = float(values.mean())
    return flat_scores(quality)
