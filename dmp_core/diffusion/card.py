"""`dmp.json`, the card of an adapter: how it was trained and how to run it. Light to import, for planning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from dmp_core.diffusion.settings import ScheduleConfig
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality, built_in, find_modality
from dmp_core.modalities.base import Classes, DepthCurve
from dmp_core.modalities.colour import PUBLISHED_AXES_WORDS
from dmp_core.modalities.settings import MOST_CLASSES, OwnModality
from dmp_core.names import Prediction, Source
from dmp_core.settings import raise_readable, since

CARD_FILE = "dmp.json"
PUBLISHED_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
"""Names of the file in an adapter that the paper's authors, or diffusers, wrote."""
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
    use_prompt: bool | None = since(None)
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
    """``dmp.json`` of an adapter folder, or the paper's settings when there is none.

    modality: what it predicts, if neither the card nor the folder's name states it.
    """
    file = Path(folder) / CARD_FILE
    if not file.exists():
        return _card_of_none(Path(folder).absolute(), modality)
    try:
        meta = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); write it again with save_adapter") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a folder with a readable card") from None
    return parse_card(meta, str(file))


def _card_of_none(folder: Path, modality: str | None) -> AdapterCard:
    """The card of a folder without one: the paper's settings, and what its name says if the authors published it.

    Theirs are named MODALITY-DATA, and MODALITY-DATA-notext if they were trained without captions.
    """
    if not any((folder / file).is_file() for file in PUBLISHED_FILES):
        return AdapterCard(encoding=Encoding(axes=PUBLISHED_AXES_WORDS))
    word, _, data = folder.name.partition("-")
    published = {one.name: one.published for one in built_in() if one.published}
    named = next((name for name, found in published.items() if data and word in found.words), None)
    task = named or (modality if modality in published else None)
    stated: dict[str, Any] = {"source": "oracle", "num_steps": 5}
    if named is not None:
        stated |= {"base": _PUBLISHED_BASE, "use_prompt": not folder.name.endswith("-notext")}
    if task is None:
        return AdapterCard(**stated, encoding=Encoding(axes=PUBLISHED_AXES_WORDS))
    return AdapterCard(**stated, task=task, encoding=Encoding(**published[task].encoding))


def parse_card(meta: Any, source: str) -> AdapterCard:
    """Validate a mapping as a card; every line of the error starts with ``source``."""
    try:
        return AdapterCard.model_validate(dict(meta) if isinstance(meta, Mapping) else meta)
    except ValidationError as error:
        raise_readable(error, source)
