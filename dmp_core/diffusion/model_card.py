"""The README of an adapter folder: what it predicts, its base model, its scores, and how to load it without this code.

For readers alone: nothing here reads it, manifests do not list it, and a folder without one is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dmp_core.diffusion.card import CARD_FILE, AdapterCard, read_card
from dmp_core.diffusion.shipped import SHIPPED
from dmp_core.modalities import Metric
from dmp_core.store.files import write_file
from dmp_core.store.workspace import README
from dmp_core.text import has_text, markdown, markdown_code

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
"""Of a repository on the Hugging Face hub."""
_SHIPPED_FILES = "data_manifests"
"""Where the models that ship are, in this project's repository."""


@dataclass(frozen=True)
class Score:
    """One result of the evaluation."""

    split: str
    metric: Metric
    value: float


def write_model_card(folder: Path) -> None:
    """Write the README of an adapter of DMP that has a ``dmp.json`` and no README yet, or one without text."""
    file = folder / README
    if file.exists() and has_text(file.read_text("utf-8", errors="replace")):
        return
    if (folder / CARD_FILE).is_file() and read_card(folder).method == "dmp":
        write_file(file, model_card(folder).encode())


def model_card(folder: Path, scores: Sequence[Score] = (), place: str = ".") -> str:
    """The README as Markdown, with a YAML header that the Hugging Face hub reads.

    place: the adapter's folder or hub id, as the code to load it names it.
    Raises InputError if the folder's ``dmp.json`` is damaged.
    """
    card, kind = read_card(folder), _kind(folder)
    title = "a dense prediction" if card.modality is None else card.modality.title
    parts = [
        f"---\n{yaml.safe_dump(_header(card, kind), sort_keys=False, allow_unicode=True)}---",
        f"# {markdown(title[:1].upper() + title[1:])} by diffusion",
        f"{_INTRODUCTION[kind]} of {_base(card)}, trained with DMP (*Exploiting Diffusion Prior for Generalizable "
        "Dense Prediction*, CVPR 2024) to turn an image into one of its properties in "
        f"{card.num_steps} deterministic step{'s' if card.num_steps > 1 else ''}.",
        _facts(card, folder),
        _scores(scores),
        _loading(card, kind, place),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_INTRODUCTION = {"lora": "A LoRA adapter on the U-Net", "unet": "The whole U-Net, trained", "other": "An adapter"}


def _kind(folder: Path) -> str:
    """How the weights are stored: `lora` as PEFT does, `unet` as diffusers does, or `other`."""
    from dmp_core.diffusion.adapters import UNET_FILE
    from dmp_core.diffusion.lora_files import CONFIG_FILE, PEFT_FILES

    if any((folder / name).is_file() for name in PEFT_FILES) and (folder / CONFIG_FILE).is_file():
        return "lora"
    return "unet" if (folder / UNET_FILE).is_file() else "other"


def _header(card: AdapterCard, kind: str) -> dict[str, Any]:
    header: dict[str, Any] = {"library_name": "peft" if kind == "lora" else "diffusers"}
    if card.base is not None and HUB_NAME.fullmatch(card.base) and not Path(card.base).exists():
        header["base_model"] = card.base
    if card.modality is not None:
        header["pipeline_tag"] = card.modality.card.category
    return header | {"tags": ["dmp", "dense-prediction", *([card.task] if card.task else [])]}


def _base(card: AdapterCard) -> str:
    return "its base model" if card.base is None else markdown_code(card.base)


def _facts(card: AdapterCard, folder: Path) -> str:
    extra = card.model_extra or {}
    training = extra.get("training") if isinstance(extra.get("training"), dict) else {}
    rows = {
        "base model": _base(card),
        "predicts": "" if card.modality is None else markdown(f"{card.modality.name}: {card.modality.title}"),
        "channels": _channels(card),
        "resolution": "" if card.resolution is None else f"{card.resolution} pixels, the shorter side",
        "sampling": f"{card.num_steps} step{'s' if card.num_steps > 1 else ''}, {card.prediction}-prediction, "
        f"x from {card.source}, {card.schedule.spacing} timesteps",
        "LoRA rank": str(_rank(folder) or ""),
        "training images": str(extra.get("samples", "")),
        "training steps": str((training or {}).get("steps", "")),
    }
    lines = [f"| {name} | {value if name == 'base model' else markdown(value)} |" for name, value in rows.items()]
    kept = [line for line, value in zip(lines, rows.values(), strict=True) if value]
    return "\n".join(["| | |", "|---|---|", *kept, "", f"`{CARD_FILE}` states all settings."])


def _channels(card: AdapterCard) -> str:
    encoding = card.encoding
    if encoding.mode == "F":
        return f"their mean in [0, 1] times {encoding.scale:g}"
    return encoding.axes or (f"colours of the palette {encoding.palette}" if encoding.palette else "RGB in [0, 1]")


def _rank(folder: Path) -> Any:
    from dmp_core.diffusion.lora_files import CONFIG_FILE

    try:
        return json.loads((folder / CONFIG_FILE).read_text()).get("r")
    except (OSError, ValueError, AttributeError):
        return None


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return ""
    lines = ["## Scores", "", "| split | metric | value |", "|---|---|---:|"]
    for score in scores:
        arrow, metric = "↑" if score.metric.higher_is_better else "↓", score.metric
        lines.append(f"| {markdown(score.split)} | {markdown(metric.label)} {arrow} | {score.value:.4g}{metric.unit} |")
    return "\n".join(lines)


def _loading(card: AdapterCard, kind: str, place: str) -> str:
    ours = "DMP Pipeline runs the sampler and decodes the result: `dmp predict photo.jpg --adapter FOLDER`."
    parts = ["## How to load it"]
    if kind in _LOAD:
        names = json.dumps(_base_path(card)), json.dumps(place)
        inside = place.startswith(f"{_SHIPPED_FILES}/")
        parts.append(
            f"With plain diffusers{' and PEFT' if kind == 'lora' else ''}, in "
            f"{'the root of the repository of DMP Pipeline' if inside else 'this folder'}"
            f"{_where_base_is(card) if not inside else ''}:"
        )
        parts.append("\n".join(["```python", *(line.format(*names) for line in _LOAD[kind]), "```"]))
    if kind == "lora":
        parts.append("`load_lora_weights` reads another format: from this folder it loads nothing.")
    return "\n\n".join([*parts, ours])


_LOAD = {
    "lora": (
        "from diffusers import StableDiffusionPipeline",
        "from peft import PeftModel",
        "base, adapter = {0}, {1}",
        "pipeline = StableDiffusionPipeline.from_pretrained(base)",
        "unet = PeftModel.from_pretrained(pipeline.unet, adapter)",
    ),
    "unet": (
        "from diffusers import StableDiffusionPipeline, UNet2DConditionModel",
        "base, adapter = {0}, {1}",
        "unet = UNet2DConditionModel.from_pretrained(adapter)",
        "pipeline = StableDiffusionPipeline.from_pretrained(base, unet=unet)",
    ),
}


def _base_path(card: AdapterCard) -> str:
    base = card.base or "BASE"
    return f"{_SHIPPED_FILES}/priors/{base.removeprefix(SHIPPED)}" if base.startswith(SHIPPED) else base


def _where_base_is(card: AdapterCard) -> str:
    shipped = (card.base or "").startswith(SHIPPED)
    return "; the base model is a folder in the repository of DMP Pipeline" if shipped else ""
