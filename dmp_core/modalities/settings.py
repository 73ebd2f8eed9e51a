"""Your own modalities, as defined in the configuration's `own_modalities`."""

from __future__ import annotations

import keyword
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, PositiveFloat, field_validator, model_validator

from dmp_core.evaluation.colours import id_type
from dmp_core.modalities.base import CardText, ErrorScale, Metric, Modality
from dmp_core.reading import read_text, shown
from dmp_core.settings import Settings, since
from dmp_core.text import markdown

Label = Annotated[str, Field(max_length=100), AfterValidator(lambda text: _one_line(text))]
"""A short text for reports and cards."""
Channel = Annotated[int, Field(ge=0, le=255)]
_LONGEST_LIST = 2**22
MOST_CLASSES = 65534


class _Own(Settings):
    title: Label | None = since(None)
    """Its name in reports; None: the key, capitalised."""
    instruction: str | None = since(None)
    """The instruction for models that edit by instructions; None: "make it into the corresponding NAME map"."""

    def words(self, name: str) -> dict[str, Any]:
        plain = name.replace("_", " ")
        title = self.title or plain.capitalize()
        instruction = self.instruction or f"make it into the corresponding {plain} map"
        return {"title": title, "short": title, "instruction": instruction}


class ScalarModality(_Own):
    """One number per pixel: roughness, a matte, edges, a temperature."""

    kind: Literal["scalar"] = "scalar"
    range: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest value. In [0, 1] without a unit, labels are 8-bit grey PNG; else .npy, NaN: no label."""
    unit: Label = since("")
    """Of the values, for reports: "°C"."""
    colour_map: str | None = since(None)
    """Colour map of matplotlib, for renderings; None: grey for PNG, viridis for .npy."""

    @model_validator(mode="after")
    def _ascends(self) -> ScalarModality:
        low, high = self.range
        if not -65504 <= low < high <= 65504:
            raise ValueError("range: give the smallest value, then the largest, both within ±65504 (float16)")
        return self

    def build(self, name: str) -> Modality:
        from dmp_core.modalities.scalar import INTRINSIC_METRICS, VALUE_GATES, VALUE_SCORES, ScalarMap

        low, high = self.range
        png = (low, high) == (0, 1) and not self.unit
        unit = f" {self.unit}" if self.unit else ""
        member = f"{name}.png" if png else f"{name}.npy"
        decoder = (
            f'np.asarray(Image.open(io.BytesIO(sample["{member}"]))) / 255.0'
            if png
            else f'np.load(io.BytesIO(sample["{member}"]))'
        )
        between = f"from {low:g} to {high:g} {markdown(self.unit)}".rstrip()
        return ScalarMap(
            name=name,
            member=member,
            low=low,
            high=high,
            unit=self.unit,
            suffixes=(".png",) if png else (".npy",),
            metrics=tuple(_unpublished(m) for m in INTRINSIC_METRICS) if png else _metrics_in(unit, high - low),
            error_scale=ErrorScale("absolute difference", 0.3 * (high - low), unit),
            colour_map=self.colour_map or (None if png else "viridis"),
            gates=VALUE_GATES if png else ("min_labelled", *VALUE_GATES),
            quality_scores=VALUE_SCORES if png else {"labelled": float, **VALUE_SCORES},
            card=CardText(
                stored="8-bit grey PNG" if png else "float16, shape (H, W)",
                meaning="Values in [0, 1], `code / 255`."
                if png
                else f"Values {between}; what is not finite: no label.",
                snippet=f"{_identifier(name)} = {decoder}  # (H, W){unit}",
            ),
            **self.words(name),
        )


class ColourModality(_Own):
    """Three channels per pixel, each in [0, 1]: 8-bit RGB PNG."""

    kind: Literal["colour"] = "colour"

    def build(self, name: str) -> Modality:
        from dmp_core.modalities.colour import ColourMap
        from dmp_core.modalities.scalar import INTRINSIC_METRICS, VALUE_SCORES

        member = f"{name}.png"
        decoder = f'np.asarray(Image.open(io.BytesIO(sample["{member}"]))) / 255.0'
        return ColourMap(
            name=name,
            member=member,
            metrics=tuple(_unpublished(m) for m in INTRINSIC_METRICS),
            error_scale=ErrorScale("absolute difference, mean of the channels", 0.3),
            quality_scores=VALUE_SCORES,
            card=CardText(
                stored="8-bit RGB PNG",
                meaning="Values in [0, 1], `code / 255`.",
                snippet=f"{_identifier(name)} = {decoder}  # (H, W, 3)",
            ),
            **self.words(name),
        )


class VectorModality(_Own):
    """A direction per pixel: 8-bit RGB PNG of (n + 1) / 2; x points right, y up, z toward the viewer."""

    kind: Literal["vector"] = "vector"

    def build(self, name: str) -> Modality:
        from dmp_core.modalities.colour import VECTOR_METRICS, VECTOR_SCORES, VectorMap

        member = f"{name}.png"
        return VectorMap(
            name=name,
            member=member,
            metrics=tuple(_unpublished(m) for m in VECTOR_METRICS if m.form == "correct"),
            error_scale=ErrorScale("angle between the vectors", 60.0, "°"),
            quality_scores=VECTOR_SCORES,
            gates=("min_labelled", "min_unit"),
            card=CardText(
                stored="8-bit RGB PNG of (n + 1) / 2",
                meaning="Unit vector, x to the right, y up, z toward the viewer; (128, 128, 128) means no label.",
                snippet=f'{_identifier(name)} = np.asarray(Image.open(io.BytesIO(sample["{member}"]))) / 255.0 * 2 - 1',
            ),
            **self.words(name),
        )


class ClassesModality(_Own):
    """One class per pixel: grey PNG of ids, 8 bits for up to 254 classes, 16 bits for up to 65,534."""

    kind: Literal["classes"] = "classes"
    classes: list[str] | str
    """Their names, by id; or a file with one name per line."""
    ignore: Annotated[int, Field(ge=0, le=65535)] | None = since(None)
    """Id of pixels without a label, which may be a class's id; None: 255, or 65535 for 16 bits."""
    palette: list[tuple[Channel, Channel, Channel]] | None = since(None)
    """Colour of each class in the label images; None: chosen as far apart as possible."""
    headline: list[str] | None = since(None)
    """Classes that the primary metric averages; None: all."""
    weights: dict[str, PositiveFloat] = since({})
    """Class → weight of its pixels in training on decoded images (`train.loss: decoded`); the others count 1."""

    @field_validator("classes", mode="after")
    @classmethod
    def _listed(cls, classes: list[str] | str) -> list[str]:
        """The names themselves, so that fingerprints depend on them and not on their file's path."""
        if isinstance(classes, str):
            lines = read_text(Path(classes).expanduser(), _LONGEST_LIST).splitlines()
            classes = [name for line in lines if (name := line.strip()) and not name.startswith("#")]
        if not 2 <= len(classes) <= MOST_CLASSES or len(set(classes)) != len(classes):
            raise ValueError(f"classes: {len(classes)} names; give 2 to {MOST_CLASSES}, each once")
        return classes

    @model_validator(mode="after")
    def _fits(self) -> ClassesModality:
        for field in ("headline", "weights"):
            if unknown := [name for name in getattr(self, field) or () if name not in self.classes]:
                raise ValueError(f"{field}: no class {shown(unknown[0])}; choose among `classes`")
        if self.palette is not None and len(set(self.palette)) != len(self.classes):
            raise ValueError(f"palette: give {len(self.classes)} different colours, one for each class")
        return self

    def build(self, name: str) -> Modality:
        from dmp_core.modalities.classes import CLASS_SCORES, MOST_BYTE_CLASSES, OwnClassMap, class_metrics

        ids = {label: number for number, label in enumerate(self.classes)}
        narrow = len(self.classes) <= MOST_BYTE_CLASSES
        ignored = self.ignore if self.ignore is not None else 255 if narrow else 65535
        among = "the classes" if self.headline is None else ", ".join(self.headline)
        member, bits = f"{name}.png", np.iinfo(id_type(len(ids), ignored)).bits
        return OwnClassMap(
            name=name,
            member=member,
            classes=tuple(self.classes),
            ignored=ignored,
            colours=None if self.palette is None else tuple(self.palette),
            headline=None if self.headline is None else frozenset(ids[label] for label in self.headline),
            weights={ids[label]: weight for label, weight in self.weights.items()},
            metrics=class_metrics(f"{among} that occur in the labels"),
            quality_scores=CLASS_SCORES,
            gates=("min_labelled",),
            card=CardText(
                stored=f"{bits}-bit grey PNG",
                meaning=f"Class id, 0 to {len(ids) - 1}; {ignored} means no label.",
                snippet=f'{_identifier(name)} = np.asarray(Image.open(io.BytesIO(sample["{member}"])))  # (H, W) ids',
                category="image-segmentation",
            ),
            **self.words(name),
        )


OwnModality = Annotated[ScalarModality | ColourModality | VectorModality | ClassesModality, Field(discriminator="kind")]


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{shown(text)}: give one line of text, without control characters")
    return text


def _unpublished(metric: Metric) -> Metric:
    return replace(metric, paper="")


def _metrics_in(unit: str, span: float) -> tuple[Metric, ...]:
    decimals = 3 if span < 10 else 2 if span < 100 else 1
    return (
        Metric("rmse", "RMSE", "Root of the mean squared difference.", unit=unit, decimals=decimals),
        Metric("l1", "MAE", "Mean absolute difference.", unit=unit, decimals=decimals),
    )


_USED = {"glob", "image", "io", "json", "np", "pattern", "prompt", "sample", "shard", "shards", "wds"}


def _identifier(name: str) -> str:
    """Variable name of the modality's labels in the card's code, where some names are already used."""
    return f"{name}_map" if keyword.iskeyword(name) or name in _USED else name
