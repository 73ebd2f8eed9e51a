"""Datasets grow by parts: each request for more images gets its own folder, so that no old shard changes.

`datasets/rooms/train/` is the first part of the split `train`, `datasets/rooms/train-kitchen/` a later one. A part
has its own prompts, images and labels, and its samples' keys start with its name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain
from itertools import count as count_from

from pydantic import BaseModel

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.prompts.keywords import split_keywords
from dmp_core.prompts.subject import refuse_unusable
from dmp_core.stages.overwrites import held_dataset, imported, prompts_of, stored_folders
from dmp_core.stages.registry import kind_of
from dmp_core.store import Lock, Manifest, Workspace
from dmp_core.store.folders import names_in
from dmp_core.store.workspace import read_record


def dataset_config(
    settings: PipelineConfig,
    workspace: str,
    keywords: Sequence[str],
    count: int,
    *,
    name: str | None = None,
    split: str = "train",
    part: str | None = None,
) -> PipelineConfig:
    """`settings` for a single part of a dataset: `count` images of these keywords.

    An existing dataset is extended. The part is named after its keywords, unless `part` is given; the same keywords
    and count again mean the same part, so an interrupted request is resumed, unless the dataset has grown meanwhile.
    Its captions differ from all captions of the dataset, test splits included.

    Args:
        name: the dataset; by default the first keyword.
        split: of the part, in the dataset's card.
        part: name of the part, to request more of the same keywords.
    """
    words = split_keywords(split, keywords, None)
    refuse_unusable({f"splits.{split}.keywords": words}, settings.prompts.max_characters)
    if "-" in split:
        raise InputError(f"split {split!r}: give the name before the hyphen; the rest is the part's name")
    place, title = Workspace(workspace), dataset_name(name, words[0])
    with Lock(place, f"datasets-{title}") as lock:  # simultaneous requests must not choose the same folder
        lock.wait()
        existing = held_dataset(place, title)
        _refuse_imported(place, title, existing)
        prompts = {folder: prompts_of(place, manifest) for folder, manifest in existing.items()}
        known, request = (
            requests_of(place, title),
            Request(keywords=words, count=count, part=part and unicodedata.normalize("NFC", part)),
        )
        if request.part:
            folder = f"{split}-{slug(request.part)}"
            made = _made_for(existing[folder], prompts[folder], request.part) if folder in existing else request
            if (other := known.get(folder, made)) != request:
                raise InputError(
                    f"--part {part}: {kind_of('shards').place(place)}/{title}/{folder} is another request's folder "
                    f"({other}; now: {request}); give another --part"
                )
        else:
            folder = _folder(split, words, count, prompts, known)
        before = prompts.get(folder)
        exclude = _excluded(before) if before else [f"{n}-{m.fingerprint}" for n, m in prompts.items() if m]
        wanted = {"keywords": words, "count": count, "exclude": exclude}
        values = settings.model_dump(mode="json") | {"dataset": title, "splits": {folder: wanted}}
        config = validate(values, "dataset")
        if folder not in known:
            _note_request(place, title, folder, request)  # last: a rejected request reserves no folder
    return config


def dataset_name(name: str | None, default: str) -> str:
    """The given name in Unicode's composed form (NFC), or a slug of the default."""
    return unicodedata.normalize("NFC", name) if name else slug(default)


def slug(text: str) -> str:
    """`Jewelry shop!` → `jewelry-shop`, at most 48 characters."""
    text = unicodedata.normalize("NFC", text).lower()
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())[:48].strip("-") or "dataset"


class Request(BaseModel):
    """A request for samples of a dataset, recorded with the folder that was reserved for it."""

    keywords: list[str]
    count: int
    part: str | None = None
    """Its name, if the user gave one."""

    def __str__(self) -> str:
        name = f"part {self.part!r} with " if self.part else ""
        return f"{name}{self.count} of {', '.join(self.keywords)}"


def _refuse_imported(place: Workspace, title: str, existing: Mapping[str, Manifest]) -> None:
    begun = not existing and stored_folders(place, title)
    if begun or (existing and all(imported(manifest) for manifest in existing.values())):
        raise InputError(f"dataset {title!r}: holds images that were imported from a folder; give another --name")


def _made_for(merged: Manifest, prompts: Manifest | None, part: str | None) -> Request:
    """The request of a finished part that has no record."""
    made = prompts.config if prompts else {}
    count = merged.samples + sum(merged.details.get("dropped", {}).values())
    keywords = made.get("keywords", merged.details.get("keywords", []))
    return Request(keywords=keywords, count=made.get("count", count), part=part)


def _folder(
    split: str,
    words: list[str],
    count: int,
    prompts: Mapping[str, Manifest | None],
    requests: Mapping[str, Request],
) -> str:
    """The part of an earlier request with the same keywords, finished or not, or a new name."""
    made = {folder: (m.config.get("keywords"), m.config.get("count")) for folder, m in prompts.items() if m}
    noted = {folder: (known.keywords, known.count) for folder, known in requests.items() if not known.part}
    for folder, known in [*noted.items(), *made.items()]:  # its own reservation before other parts
        if known == (words, count) and folder.partition("-")[0] == split:
            return folder
    name = f"{split}-{slug(' '.join(words))}"
    names = chain([split, name], (f"{name}-{number}" for number in count_from(2)))
    return next(candidate for candidate in names if candidate not in prompts and candidate not in requests)


def requests_of(place: Workspace, title: str) -> dict[str, Request]:
    """Recorded requests of the dataset, by the folder that was reserved for each."""
    folder = f"{place.root}/.requests/{title}"
    names = [name for name in names_in(place.fs, folder) if name.endswith(".json")]
    notes = {
        name.removesuffix(".json"): read_record(place, f"{folder}/{name}", Request, "the same request writes it again")
        for name in names
    }
    return {name: note for name, note in notes.items() if note is not None}


def _note_request(place: Workspace, title: str, folder: str, request: Request) -> None:
    place.write_bytes(f"{place.root}/.requests/{title}", f"{folder}.json", request.model_dump_json().encode())


def _excluded(prompts: Manifest) -> list[str]:
    """The prompts that the part's captions were compared with when it was made; keeps its fingerprint."""
    found = {role.removeprefix("exclude_"): value for role, value in prompts.inputs.items()}
    return [f"{name}-{fingerprint}" for name, fingerprint in found.items()]
