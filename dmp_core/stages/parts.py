"""Datasets grow by parts: each request for more images is a folder of its own, so that no old shard is touched.

`datasets/rooms/train/` is the first part of the split `train`, `datasets/rooms/train-kitchen/` a later one. A part
has its own prompts, images and labels, and its samples' keys start with its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from itertools import count as count_from

from dmp_core.config.pipeline import PipelineConfig, validate
from dmp_core.errors import InputError
from dmp_core.prompts.keywords import split_keywords
from dmp_core.prompts.subject import refuse_unusable
from dmp_core.store import Lock, Manifest, Workspace
from dmp_core.store.workspace import FOLDERS, split_manifests


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
    """`settings` for one part of a dataset alone: `count` images of these keywords.

    A dataset that exists is extended. The part is called after its keywords, unless `part` names it; the same
    keywords and count again mean the same part, so an interrupted request is taken up where it stopped, unless the
    dataset has grown meanwhile. Its captions are none of those that the dataset has already, test splits included.

    Args:
        name: the dataset; by default the first keyword.
        split: what the part belongs to, in the dataset's card.
        part: name of the part, to ask for more of the same keywords.
    """
    words = split_keywords(split, keywords, None)
    refuse_unusable({f"splits.{split}.keywords": words}, settings.prompts.max_characters)
    if "-" in split:
        raise InputError(f"split {split!r}: give the name before the hyphen; what follows it is the part's name")
    place, title = Workspace(workspace), name or slug(words[0])
    with Lock(place, f"datasets-{title}") as lock:  # requests that come at once must not choose the same folder
        lock.wait()
        existing = split_manifests(place, f"{place.root}/{FOLDERS['shards']}/{title}")
        prompts = {folder: _prompts(place, manifest) for folder, manifest in existing.items()}
        requests = _requests(place, title)
        folder = f"{split}-{slug(part)}" if part else _folder(split, words, count, prompts, requests)
        before = prompts.get(folder)
        exclude = _excluded(before) if before else [f"{n}-{m.fingerprint}" for n, m in prompts.items() if m]
        wanted = {"keywords": words, "count": count, "exclude": exclude}
        values = settings.model_dump(mode="json") | {"dataset": title, "splits": {folder: wanted}}
        config = validate(values, "dataset")
        if requests.get(folder) != (words, count):
            _note_request(place, title, folder, words, count, part)  # last: what is refused sets no folder aside
    return config


def slug(text: str) -> str:
    """`Jewelry shop!` → `jewelry-shop`, at most 48 characters."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())[:48].strip("-") or "dataset"


Request = tuple[list[str], int]
"""Keywords and count."""


def _folder(
    split: str,
    words: list[str],
    count: int,
    prompts: Mapping[str, Manifest | None],
    requests: Mapping[str, Request | None],
) -> str:
    """The part that was asked for before with the same words, whether or not it was finished, or a new name."""
    made = {folder: (m.config.get("keywords"), m.config.get("count")) for folder, m in prompts.items() if m}
    for folder, asked in [*requests.items(), *made.items()]:  # its own reservation before others' parts
        if asked == (words, count) and folder.partition("-")[0] == split:
            return folder
    name = f"{split}-{slug(' '.join(words))}"
    names = chain([split, name], (f"{name}-{number}" for number in count_from(2)))
    return next(candidate for candidate in names if candidate not in prompts and candidate not in requests)


def _requests(place: Workspace, title: str) -> dict[str, Request | None]:
    """What was asked of the dataset, by the folder that was set aside for it; None if its part was named by hand."""
    found: dict[str, Request | None] = {}
    for path in place.fs.glob(f"{place.root}/.requests/{title}/*.json"):
        asked = json.loads(place.fs.cat_file(path))
        folder = path.rsplit("/", 1)[-1].removesuffix(".json")
        found[folder] = None if asked.get("part") else (asked["keywords"], asked["count"])
    return found


def _note_request(place: Workspace, title: str, folder: str, words: list[str], count: int, part: str | None) -> None:
    asked = json.dumps({"keywords": words, "count": count, "part": part})
    place.write_bytes(f"{place.root}/.requests/{title}", f"{folder}.json", asked.encode())


def _prompts(place: Workspace, merged: Manifest) -> Manifest | None:
    """The manifest of a part's prompts, by way of its images; None if they are gone, or the images came without."""
    found: Manifest | None = merged
    for stage in ("images", "prompts"):
        fingerprint = found.inputs.get(stage) if found else None
        artefact = place.artefact(stage, str(merged.config["split"]), fingerprint or "")
        found = artefact.manifest() if fingerprint else None
    return found


def _excluded(prompts: Manifest) -> list[str]:
    """What the part's captions were held against when it was made; keeps its fingerprint."""
    found = {re.sub("^exclude_", "", role): value for role, value in prompts.inputs.items()}
    return [f"{name}-{fingerprint}" for name, fingerprint in found.items()]
