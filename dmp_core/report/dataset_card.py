"""The README of a dataset folder: its content, units and code to open it.

Light to import: no torch, no pandas, no matplotlib, so that `dmp dataset card` starts fast.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality, built_in, modalities_of
from dmp_core.report.data import ModelRecord
from dmp_core.report.dataset_record import UNKNOWN, features, record_schema
from dmp_core.store.workspace import Manifest
from dmp_core.text import markdown, markdown_code, one_line

FOLDER = "folder"
"""Generator of images that were not generated."""


@dataclass(frozen=True)
class DatasetCardInfo:
    """Everything that a card states; empty parts are omitted."""

    name: str
    splits: Mapping[str, int]
    """Samples per split, in the order to list them."""
    modalities: Sequence[Modality] = field(default_factory=built_in)
    """Modalities that any split has labels for, in the order to list them."""
    split_modalities: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Per split the names of its modalities, if it does not have all of them."""
    imported: Sequence[str] = ()
    """Splits whose images were imported from a folder instead of generated."""
    keywords: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Per split."""
    image_format: str = "png"
    image_formats: Sequence[str] = ()
    """All formats if splits differ; `image_format` is the first split's."""
    resolution: tuple[int, int] | None = None
    """Height and width in pixels."""
    generator: str = ""
    """Generator of the images."""
    prompts: str = ""
    """Generator of the captions."""
    labelers: Mapping[str, str] = field(default_factory=dict)
    """Per modality: labeler."""
    palette: str = ""
    """Name of the colour code used to train on ADE20K's class ids; the files hold ids."""
    models: Sequence[ModelRecord] = ()
    licence: str = ""
    """Licence of the dataset, a Hugging Face identifier such as `cc-by-4.0`."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Per split."""
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Per split: quality gate → samples that failed it."""

    @property
    def names(self) -> list[str]:
        """Names of its modalities."""
        return [modality.name for modality in self.modalities]


def dataset_card(info: DatasetCardInfo) -> str:
    """The card as Markdown with a YAML header that the Hugging Face hub reads."""
    parts = [
        f"---\n{yaml.safe_dump(_header(info), sort_keys=False, allow_unicode=True)}---",
        f"# {markdown(info.name)}",
        _introduction(info),
        _splits(info),
        _members(info),
        _usage(info),
        _origin(info),
        *(modality.card_section() for modality in info.modalities),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sealed(card: str) -> str:
    """The card with a last line that shows whether somebody has edited it since."""
    return f"{card}\n<!-- Written by dmp ({_digest(card)}); edit this file as you like, it is then kept. -->\n"


def is_sealed(text: str) -> bool:
    """Whether it is what `sealed` gave for some card, without a change."""
    found = _SEAL.search(text)
    return found is not None and _digest(text[: found.start()]) == found[1]


_SEAL = re.compile(r"\n<!-- Written by dmp \(([0-9a-f]{16})\)[^\n]*-->\n\Z")


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()[:16]


def card_from_manifests(manifests: Mapping[str, Manifest]) -> str:
    """The card of a finished dataset; manifests: those of the shards stage, by split.

    Reads these entries of `manifest.details`: keywords, resolution, generator, prompts, labelers, models (mappings
    with the fields of `ModelRecord`), licence.
    """
    first = next(iter(manifests.values()))
    made = next((m for m in manifests.values() if m.details.get("generator") != FOLDER), first)
    details = made.details
    known = _known(manifests.values())
    held = {split: [m.name for m in known if m.name in manifest.inputs] for split, manifest in manifests.items()}
    labelers = {label: made_by for m in manifests.values() for label, made_by in m.details.get("labelers", {}).items()}
    models = {
        (m["name"], m["used_for"]): ModelRecord(**m) for s in manifests.values() for m in s.details.get("models", [])
    }
    resolution = details.get("resolution")
    formats = [str(m.config.get("shards", {}).get("image_format", "png")) for m in manifests.values()]
    return dataset_card(
        DatasetCardInfo(
            name=str(first.config.get("dataset", first.name)),
            splits={split: manifest.samples for split, manifest in manifests.items()},
            modalities=[modality for modality in known if any(modality.name in had for had in held.values())],
            split_modalities=held,
            imported=[split for split, manifest in manifests.items() if manifest.details.get("generator") == FOLDER],
            keywords={s: m.details["keywords"] for s, m in manifests.items() if m.details.get("keywords")},
            image_format=formats[0],
            image_formats=list(dict.fromkeys(formats)),
            resolution=(int(resolution[0]), int(resolution[1])) if resolution else None,
            generator=str(details.get("generator", "")),
            prompts=str(details.get("prompts", "")),
            labelers=labelers,
            palette=str(first.config.get("palette", "")),
            models=list(models.values()),
            licence=str(details.get("licence", "")),
            fingerprints={split: manifest.fingerprint for split, manifest in manifests.items()},
            left_out={split: manifest.details.get("dropped", {}) for split, manifest in manifests.items()},
        )
    )


def _known(manifests: Iterable[Manifest]) -> list[Modality]:
    """The modalities that these splits may have labels for; raises InputError if they have others."""
    own: dict[str, Any] = {}
    columns: set[str] = set()
    for manifest in manifests:
        own |= manifest.config.get("own_modalities", {})
        columns |= {role for role in manifest.inputs if role != "images" and not role.startswith("quality_")}
    known = modalities_of({"own_modalities": own})
    if unknown := columns - {modality.name for modality in known}:
        raise InputError(
            f"the dataset has labels for {', '.join(sorted(unknown))}; install the package that defines it"
        )
    return known


def _header(info: DatasetCardInfo) -> dict[str, Any]:
    header: dict[str, Any] = {"pretty_name": one_line(info.name), "language": ["en"]}
    if info.licence or info.imported:
        header["license"] = info.licence or "other"
    if info.modalities:
        header["task_categories"] = sorted({modality.card.category for modality in info.modalities})
    header["size_categories"] = [_size(sum(info.splits.values()))]
    made = ["synthetic"] if len(info.imported) < len(info.splits) else []
    # Tags that the category does not imply.
    tags = [m.name for m in info.modalities if m.name not in m.card.category.split("-")]
    header["tags"] = [*made, "webdataset", *tags]
    files = [{"split": split, "path": paths} for split, paths in _paths(info).items()]
    header["configs"] = [{"config_name": "default", "data_files": files}]
    header["dataset_info"] = {"features": _features(info)}
    return header


def _features(info: DatasetCardInfo) -> list[dict[str, Any]]:
    """The columns of all splits, for `datasets`: columns that a split or a part lacks are empty there."""
    arrays = {"list": {"list": "float16"}}
    members = [*_formats(info), *(modality.member for modality in info.modalities)]
    return [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        *({"name": m, **(arrays if m.endswith(".npy") else {"dtype": "image"})} for m in members),
        {"name": "json", "struct": features(record_schema(info.modalities))},
    ]


def _formats(info: DatasetCardInfo) -> Sequence[str]:
    return info.image_formats or [info.image_format]


def _paths(info: DatasetCardInfo) -> dict[str, str | list[str]]:
    """Split → paths of its shards; a split that has grown is in several folders: `train`, `train-kitchen`."""
    folders: dict[str, list[str]] = {}
    for folder in info.splits:
        folders.setdefault(folder.partition("-")[0], []).append(f"{folder}/*.tar")
    return {split: paths[0] if len(paths) == 1 else paths for split, paths in folders.items()}


def _size(samples: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if samples < bound:
            return name
    return "n>1M"


def _introduction(info: DatasetCardInfo) -> str:
    size = f", {info.resolution[1]} × {info.resolution[0]} pixels" if info.resolution else ""
    total = sum(info.splits.values())
    if not info.imported:
        return (
            f"{total} synthetic images with their captions{size}, each with pixel-wise labels: {', '.join(info.names)}."
            " Made by DMP Pipeline from keywords alone; any sample can be made again from its key and seed."
        )
    labels = f", with pixel-wise labels: {', '.join(info.names)}" if info.names else ""
    splits = ", ".join(markdown_code(name) for name in info.imported)
    rest = "" if len(info.imported) == len(info.splits) else "; the others were made by DMP Pipeline from keywords"
    return (
        f"{total} images{size}{labels}. Those of {splits} were imported from a folder{rest}: `source` in "
        "`{key}.json` names the file. Their licence is yours to state: the header says `other` until you do."
    )


def _splits(info: DatasetCardInfo) -> str:
    lines = ["## Splits", "", "| split | samples | keywords | fingerprint |", "|---|---:|---|---|"]
    for split, samples in info.splits.items():
        words = info.keywords.get(split, ())
        more = f" … ({len(words)} in all)" if len(words) > 6 else ""
        shown = ", ".join(markdown(word) for word in words[:6]) + more
        lines.append(f"| `{split}` | {samples} | {shown or '—'} | `{info.fingerprints.get(split, '—')}` |")
    for split, names in info.split_modalities.items():
        if set(names) != set(info.names):
            lines += [
                "",
                f"`{split}` has labels for {', '.join(names)} only." if names else f"`{split}` has no labels.",
            ]
    reasons = [
        f"`{split}` {sum(gates.values())} ({', '.join(f'{gate} {count}' for gate, count in gates.items())})"
        for split, gates in info.left_out.items()
        if gates
    ]
    if reasons:
        skipped = any("failed" in gates for gates in info.left_out.values())
        why = " or since they could not be made (`failed`)" if skipped else ""
        lines += ["", f"Left out by the quality gates{why}, so that keys have gaps: {'; '.join(reasons)}."]
    return "\n".join(lines)


def _members(info: DatasetCardInfo) -> str:
    lines = [
        "## Contents of a sample",
        "",
        "The key is `<split>-<index, 8 digits>`; every member's name starts with it.",
        "",
        "| member | stored as | meaning |",
        "|---|---|---|",
        *(f"| `{{key}}.{name}` | 8-bit RGB | The image. |" for name in _formats(info)),
    ]
    lines += [f"| `{{key}}.{m.member}` | {m.card.stored} | {m.card.meaning} |" for m in info.modalities]
    lines.append(
        "| `{key}.json` | UTF-8 JSON | Origin: prompt, keyword, seed, generator, labels, palette; quality scores. |"
    )
    lines += [
        "",
        "Every `{key}.json` has the same entries, and no nulls. What is not known of a sample is empty text or the "
        f"number {UNKNOWN}; `safety.checked` says whether `safety.flagged` means anything. `generator.settings`, "
        "`scene` (of rendered images: objects, camera, light) and `other` are text that holds JSON.",
    ]
    return "\n".join(lines)


def _usage(info: DatasetCardInfo) -> str:
    split, paths = next(iter(_paths(info).items()), ("train", "train/*.tar"))
    patterns = [paths] if isinstance(paths, str) else paths
    folders = [folder for folder in info.splits if folder.partition("-")[0] == split]
    labelled = [
        m for m in info.modalities if all(m.name in info.split_modalities.get(folder, info.names) for folder in folders)
    ]
    arrays = ", ".join(f"the {m.name}" for m in info.modalities if m.member.endswith(".npy"))
    arrays = arrays and f", {arrays} as nested lists or an array"
    formats = [f'sample["{info.image_format}"]'] if len(_formats(info)) == 1 else ['sample.get("png")', 'sample["jpg"]']
    lines = [
        "import io",
        "import json",
        "from glob import glob",
        "",
        "import numpy as np",
        "import webdataset as wds",
        "from PIL import Image",
        "",
        f"shards = sorted(shard for pattern in {patterns} for shard in glob(pattern))",
        "for sample in wds.WebDataset(shards, shardshuffle=False):  # bytes: no decoder is chosen by a member's name",
        f"    image = Image.open(io.BytesIO({' or '.join(formats)}))",
        *(f"    {modality.card.snippet}" for modality in labelled),
        '    prompt = json.loads(sample["json"])["prompt"]',
    ]
    datasets_lines = [
        "import os",
        "",
        "from datasets import load_dataset",
        "",
        "# `streaming` reads the shards in place; without it they are copied to a cache.",
        f'dataset = load_dataset(os.getcwd(), split="{split}", streaming=True)',
        f"sample = next(iter(dataset))  # PNG members arrive as PIL images{arrays}",
    ]
    return "\n".join(
        [
            "## How to open it",
            "",
            "None of the code below needs DMP Pipeline; run it in this folder.",
            "",
            "```python",
            *lines,
            "```",
            "",
            "The header of this file tells `datasets` the splits, and the columns with their types. A label that some "
            "part lacks is `None` there. `datasets` takes brackets in a path for a pattern: rename such a folder.",
            "",
            "```python",
            *datasets_lines,
            "```",
        ]
    )


def _origin(info: DatasetCardInfo) -> str:
    facts = [
        ("Captions", markdown(info.prompts)),
        ("Images", "a folder of files" if info.generator == FOLDER else markdown(info.generator)),
    ]
    facts += [(f"Labels, {name}", markdown(info.labelers.get(name, ""))) for name in info.names]
    if info.palette and any("palette" in modality.encoding(Code()) for modality in info.modalities):
        shown = f"palette {markdown_code(info.palette)}; the files hold ids, not colours"
        facts.append(("Colour code for training", shown))
    lines = ["## Where it comes from", "", *(f"- {name}: {text}" for name, text in facts if text)]
    if info.models:
        lines += ["", "| model | used for | revision | licence |", "|---|---|---|---|"]
        rows = ((m.name, m.used_for, m.revision or "—", m.licence or "—") for m in info.models)
        lines += [f"| {' | '.join(markdown(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) if len(lines) > 2 else ""
