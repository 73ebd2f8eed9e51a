"""The split `<split>.rejects`: the samples that gates left out of a dataset's split, and those that failed.

Nothing is stored for it: images, labels and scores of all samples are in the workspace, and the split's manifest states
which of them it was made from, and by which gates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import ValidationError

from dmp_core.errors import InputError
from dmp_core.export.dataset import Dataset, Part, open_finished
from dmp_core.quality.gates import explain, kept
from dmp_core.quality.tables import FAILED, failed, score_tables, skipped
from dmp_core.settings import raise_readable
from dmp_core.stages.base import Inputs
from dmp_core.stages.registry import kind_of
from dmp_core.stages.shards import ShardsStage, columns_of, joined
from dmp_core.store import Artefact, Workspace, canonical_json, shard_plans
from dmp_core.store import Sample as Members
from dmp_core.store.folders import names_in

SUFFIX = ".rejects"


@dataclass(frozen=True)
class Reject:
    """Why a sample is not in the dataset."""

    key: str
    gate: str
    """As the card counts it: `min_std`, `normal.min_unit`, `rejects`; or `failed`."""
    reason: str


@dataclass(frozen=True)
class WithRejects(Dataset):
    """A dataset some of whose splits are `<split>.rejects`; what failed has no labels, so it is not among the samples.

    Each sample's record has `rejected`: gate and reason.
    """

    views: Mapping[str, Sequence[LeftOut]] = field(default_factory=dict)
    """Those splits → what is left out of each of its parts."""

    def parts(self, split: str) -> Iterator[Part]:
        if split not in self.views:
            yield from super().parts(split)
        for view in self.views.get(split, ()):
            yield view.part()


class LeftOut:
    """What gates and failures left out of one finished split."""

    def __init__(self, split: Artefact) -> None:
        """Raises InputError if the workspace does not contain what the split was made from."""
        manifest = split.published()
        try:
            self.config = ShardsStage.model_validate(manifest.config)
        except ValidationError as error:
            raise_readable(error, split.file("manifest.json"))
        self.inputs: Inputs = {
            role: _input(split, role, known, manifest.contents.get(role)) for role, known in manifest.inputs.items()
        }

    @cached_property
    def rejects(self) -> dict[str, Reject]:
        """By key, sorted."""
        tables, gates = score_tables(self.inputs, self.config.split), self.config.gates
        columns = columns_of(self.inputs).values()
        gated = {key: (gate, explain(tables, gates, key, gate)) for key, gate in kept(tables, gates)[1].items()}
        lost = skipped(columns)
        found = gated | {key: (FAILED, lost[key]) for key in failed(columns)}
        return {key: Reject(key, *found[key]) for key in sorted(found)}

    def part(self) -> Part:
        rejects = self.rejects
        read = joined(self.config, self.inputs, lambda key: key in rejects and rejects[key].gate != FAILED)

        def rejected(number: int) -> Iterator[Members]:
            for members in read(number):
                reject = rejects[members["__key__"]]
                record = json.loads(members["json"]) | {"rejected": {"gate": reject.gate, "reason": reject.reason}}
                yield members | {"json": canonical_json(record).encode()}

        return Part(len(shard_plans(self.inputs["images"])), rejected)


def open_with_rejects(path: str, splits: Sequence[str] = ()) -> Dataset:
    """As `open_finished`; path and splits may also name `<split>.rejects`."""
    if is_rejects(path):
        if splits:
            raise InputError("--split: the path names a split already; leave one of the two out")
        path, splits = _without_suffix(path)
    wanted = [split for split in splits if split.endswith(SUFFIX)]
    if not wanted:
        return open_finished(path, splits)
    plain = open_finished(path, [split.removesuffix(SUFFIX) for split in splits])
    views = {split: [LeftOut(part) for part in plain.splits[split.removesuffix(SUFFIX)]] for split in wanted}
    shown = {split: plain.splits[split.removesuffix(SUFFIX)] for split in splits}
    return WithRejects(plain.name, shown, plain.modalities, views)


def rejects_of(path: str) -> list[Reject]:
    """All of `PATH/<split>.rejects`, those that failed included."""
    dataset = open_with_rejects(path)
    assert isinstance(dataset, WithRejects)
    return [reject for views in dataset.views.values() for view in views for reject in view.rejects.values()]


def is_rejects(path: str) -> bool:
    return path.rstrip("/").endswith(SUFFIX)


def _without_suffix(path: str) -> tuple[str, list[str]]:
    """The path of the split itself, and the name of its rejects."""
    plain = path.rstrip("/").removesuffix(SUFFIX)
    return plain, [f"{split}{SUFFIX}" for split in open_finished(plain).splits]


def _input(split: Artefact, role: str, known: str, content: str | None) -> Artefact:
    """The artefact with this fingerprint in the workspace that the split is in."""
    root = split.path.rsplit("/", 3)[0]
    place = Workspace(split.workspace.address(root), verify_inputs=split.workspace.verify_inputs)
    kind = kind_of("images" if role == "images" else "quality" if role.startswith("quality_") else "labels")
    folder = kind.place(place)
    for name in names_in(place.fs, folder):
        if name.endswith(f"-{known}"):
            found = kind.artefact(place, name.removesuffix(f"-{known}"), known)
            if content is not None and not found.published().is_content(content):
                raise InputError(f"{found.path}: was made again since {split.path}; rerun the stage `shards`")
            return found
    raise InputError(
        f"{folder}: has no artefact {known}, which {split.path} was made from; what was left out is read from the "
        "workspace in which the dataset was made: give WORKSPACE/datasets/NAME there"
    )
