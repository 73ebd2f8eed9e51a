"""`dmp.json`, the card of an adapter: how it was trained and how to run it. Light to import, for planning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from dmp_core.diffusion.settings import ScheduleConfig
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality, find_modality
from dmp_core.modalities.base import Classes, DepthCurve
from dmp_core.modalities.settings import MOST_CLASSES, OwnModality
from dmp_core.names import Prediction, Source
from dmp_core.settings import raise_readable

if TYPE_CHECKING:
    pass

CARD_FILE = "dmp.json"
_PUBLISHED_ENCODINGS: dict[str, dict[str, Any]] = {
    "normal": {"axes": "right, down, away"},
    "depth": {"mode": "F", "scale": 8.0, "clip": False},
    "segmentation": {"palette": "dmp2"},
    "albedo": {},
    "shading": {},
}
"""Modality → its encoding in the published adapters, which have no card."""
_PUBLISHED_WORDS = {name: name for name in _PUBLISHED_ENCODINGS} | {
    "seg": "segmentation",
    "ref": "albedo",
    "sha": "shading",
}
"""First word of a published adapter's folder → modality: `normal-scene100-notext`, `depth-hypersim-notext`."""
_PUBLISHED_BASE = "CompVis/stable-diffusion-v1-4"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Encoding(BaseModel):
    """Meaning of the decoded channels."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    mode: Literal["RGB", "F"] = "RGB"
    """"RGB": three channels in [0, 1]; "F": one channel, their mean times `scale`."""
    scale: Positive = 1.0
    """For "F": the value that 1 represents, e.g. 8 metres of depth."""
    class_ids: tuple[Annotated[int, Field(ge=0, lt=MOST_CLASSES)], ...] | None = None
    """For class maps: the classes of the training labels, which colours are decoded among; None: all."""
    class_shares: tuple[Positive, ...] | None = None
    """In the same order, the share of all labelled pixels that each covers."""
    axes: str | None = None
    """For normals: where x, y and z point, in words or by the name of a convention."""
    palette: str | None = None
    """For segmentation: the colour code of the classes."""
    curve: DepthCurve = "linear"
    """For depth: how grey levels grow with it."""
    clip: bool = True
    """For depth: whether depths above `scale` are white."""

    @model_validator(mode="after")
    def _matching(self) -> Encoding:
        if self.class_ids is not None and len(set(self.class_ids)) != max(1, len(self.class_ids)):
            raise ValueError("class_ids: name at least one class, each once")
        if self.class_shares is not None and len(self.class_shares) != len(self.class_ids or ()):
            raise ValueError(f"class_shares: {len(self.class_shares)} shares of {len(self.class_ids or ())} class_ids")
        return self

    def classes(self, colour_noise: float | None = None) -> Classes:
        """Those that a class map is decoded among; with their shares where `colour_noise` needs them.

        Raises InputError if the card does not state the shares.
        """
        if colour_noise is None:
            return self.class_ids
        if self.class_ids is None or self.class_shares is None:
            raise InputError(
                "sampling.colour_noise: the adapter's dmp.json states no class_shares; train it again, or omit this "
                "setting"
            )
        return dict(zip(self.class_ids, self.class_shares, strict=True))


class AdapterCard(BaseModel):
    """Contents of ``dmp.json``. Other keys are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    task: str | None = None
    """The modality's name; the key is that of the first cards."""
    own_modality: OwnModality | None = None
    """For a modality that is not built in: its description."""
    method: str = "dmp"
    prediction: Prediction = "v"
    schedule: ScheduleConfig = ScheduleConfig()
    source: Source = "oracle"
    num_steps: PositiveInt = 5
    encoding: Encoding = Encoding()
    resolution: Annotated[int, Field(gt=0, le=16384)] | None = None
    """Shorter side, in pixels, of the training images."""
    use_prompt: bool | None = None
    """Of published adapters, by their name: whether they were trained with captions; None: as `training` states."""
    base: str | None = None
    """Name of the model that was adapted."""
    base_fingerprint: str | None = None
    """`fingerprint` of its U-Net, of the first values of each tensor; loading on another U-Net is refused."""
    vae_fingerprint: str | None = None
    """The same of its VAE."""
    base_digest: str | None = None
    """`content_digest` of the U-Net. Older adapters are identified by the fingerprint only."""
    vae_digest: str | None = None

    @property
    def modality(self) -> Modality | None:
        """The predicted modality; None if the card does not state it."""
        return None if self.task is None else find_modality(self.task, self.own_modality)

    @property
    def captioned(self) -> bool | None:
        """Whether it was trained with captions; None if the card does not state it."""
        if self.use_prompt is not None:
            return self.use_prompt
        training = (self.model_extra or {}).get("training")
        stated = training.get("use_prompt") if isinstance(training, Mapping) else None
        return stated if isinstance(stated, bool) else None

    def contradictions(self, modality: Modality, code: Code | None = None) -> list[str]:
        """Reasons why the adapter does not predict this modality with this code."""
        found = []
        if self.method != "dmp":
            found.append(f"it belongs to the method {self.method}, not to dmp")
        if self.task not in (None, modality.name):
            found.append(f"it was trained for {self.task}, not for {modality.name}")
        if self.own_modality is not None and modality.description:
            learned, wanted = (
                _essence(one) for one in (self.own_modality.model_dump(mode="json"), modality.description)
            )
            found += [
                f"its {modality.name} has {name} {learned.get(name)}, own_modalities.{modality.name}.{name} is {value}"
                for name, value in wanted.items()
                if learned.get(name) != value
            ]
        for name, own in self.code_of(modality).items() if code is not None else ():
            if name != "axes" and own != (wanted := getattr(code, name)):
                found.append(f"its {name.replace('_', ' ')} is {_plain(own)}, latents.{name} is {_plain(wanted)}")
        return found

    def code_of(self, modality: Modality) -> dict[str, Any]:
        """What it states about the encoding of labels as images, as fields of `Code`."""
        return modality.code_of(self.encoding.model_dump(exclude_unset=True))

    def check(self, source: object, modality: Modality, code: Code | None = None) -> None:
        """Raise InputError for the first contradiction; `source` identifies the adapter."""
        place = CARD_FILE if self.use_prompt is None else "by its name"
        for contradiction in self.contradictions(modality, code):
            raise InputError(f"{source}: {place}: {contradiction}; choose the adapter or the setting that fits")

    def stated(self) -> dict[str, Any]:
        """The stated fields, as plain values; without defaults."""
        return self.model_dump(mode="json", exclude_unset=True)


def _essence(described: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an own modality's description that decide the meaning of its images."""
    return {name: value for name, value in described.items() if name not in ("title", "instruction", "colour_map")}


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_card(folder: str | Path, modality: str | None = None) -> AdapterCard:
    """``dmp.json`` of an adapter folder, or the card of a published adapter when there is none.

    modality: what it predicts, if neither the card nor the folder's name states it.
    """
    file = Path(folder) / CARD_FILE
    if not file.exists():
        return published_card(Path(folder).absolute().name, modality)
    try:
        meta = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); write it again with save_adapter") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a folder with a readable card") from None
    return parse_card(meta, str(file))


def published_card(folder: str, modality: str | None = None) -> AdapterCard:
    """The card of an adapter that the paper's authors published: the paper's settings, and what their name says.

    folder: its name; theirs are MODALITY-DATA, and MODALITY-DATA-notext if it was trained without captions.
    modality: what it predicts, if the name is another one.
    """
    word, _, data = folder.partition("-")
    named = _PUBLISHED_WORDS.get(word) if data else None
    known: dict[str, Any] = {"source": "oracle", "num_steps": 5}
    if named is not None:
        known |= {"base": _PUBLISHED_BASE, "use_prompt": not folder.endswith("-notext")}
    task = named or (modality if modality in _PUBLISHED_ENCODINGS else None)
    if task is not None:
        known["task"] = task
    # As long as the modality is unknown: axes, which only normals read.
    return AdapterCard(**known, encoding=Encoding(**_PUBLISHED_ENCODINGS[task or "normal"]))


def parse_card(meta: Any, source: str) -> AdapterCard:
    """Validate a mapping as a card; every line of the error starts with ``source``."""
    try:
        return AdapterCard.model_validate(dict(meta) if isinstance(meta, Mapping) else meta)
    except ValidationError as error:
        raise_readable(error, source)
