"""Writes the report's images and returns their paths."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.modalities import Modality
from dmp_core.modalities.classes import ClassMap
from dmp_core.modalities.scalar import ScalarMap
from dmp_core.report import values
from dmp_core.report.data import ReportData, Sample
from dmp_core.report.pictures import (
    ERROR_MAP,
    RGB,
    colourise_error,
    css_gradient,
    enlarge,
)
from dmp_core.report.tables import format_number, split_name
from dmp_core.scoring.protocol import ScoreTable, pick_cases
from dmp_core.scoring.registry import DMP

FOLDER = "images"
THUMBNAIL = 160
"""Longest side of a rendered map in pixels; keeps the report under 6 MB."""
PHOTO = 208
"""Longest side of an input image; tiny ones are enlarged smoothly, since browsers do it badly."""
LEGEND_CLASSES = 24

Spans = Mapping[str, tuple[float, float] | None]
"""Modality → the range of values of a split's colour map."""


@dataclass(frozen=True)
class ImageFile:
    """A written image file: its path relative to the page, alternative text and size."""

    path: str
    alt: str
    width: int
    height: int
    kind: str = "image"
    """image, label, prediction or error."""
    modality: str = ""


@dataclass(frozen=True)
class Panel:
    """One modality of one sample."""

    modality: Modality
    label: ImageFile | None
    prediction: ImageFile | None
    error: ImageFile | None
    score: str
    """Per-image score with its unit; empty when the split is not scored."""
    value: float | None = None
    """The same as a number, to sort by."""


@dataclass(frozen=True)
class Shown:
    """One sample of the gallery."""

    key: str
    prompt: str
    keyword: str
    rgb: ImageFile
    panels: Sequence[Panel]
    source: str = ""
    values: str = ""
    """Path of the script with the numbers behind the maps."""
    classes: Sequence[str] = ()
    """Names of the classes in the labels, or in the predictions if there are none."""

    @property
    def scores(self) -> dict[str, float]:
        """Modality → per-image score."""
        return {panel.modality.name: panel.value for panel in self.panels if panel.value is not None}


@dataclass(frozen=True)
class Case:
    """The best, median or worst sample of one modality."""

    rank: str
    shown: Shown
    panel: Panel


@dataclass(frozen=True)
class ColourBar:
    """Legend of a colour map."""

    title: str
    gradient: str
    ends: tuple[str, str]


@dataclass(frozen=True)
class SplitGallery:
    """All images of one split."""

    split: str
    title: str
    scored: bool
    shown: Sequence[Shown]
    cases: Mapping[str, Sequence[Case]]
    """Per modality: best, median, worst."""
    bars: Sequence[ColourBar]
    keys: Sequence[tuple[str, str]]
    """Title and `picture_key` of modalities that have one."""
    legends: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    """Per class map: title; class name and CSS colour, most frequent first."""
    errors: Sequence[tuple[str, str, str]]
    """Modality, label and range of its error map."""
    error_gradient: str

    @property
    def keywords(self) -> list[str]:
        return sorted({shown.keyword for shown in self.shown} - {""})

    @property
    def classes(self) -> list[str]:
        return sorted({name for shown in self.shown for name in shown.classes})

    @property
    def sortable(self) -> list[Modality]:
        """Modalities that images have scores of."""
        found = {name for shown in self.shown for name in shown.scores}
        first = self.shown[0].panels if self.shown else ()
        return [panel.modality for panel in first if panel.modality.name in found]


def keys_to_show(tables: Iterable[ScoreTable], keys: Sequence[str], gallery: int = 8) -> list[str]:
    """Keys of the samples that a report needs of a split: the first `gallery` ones, then the cases of DMP's tables.

    tables: the score tables of this split. The caller loads only these samples.
    """
    wanted = list(keys[:gallery])
    for table in tables:
        if table.row == DMP:
            wanted.extend(pick_cases(table, table.modality.image_metric).values())
    return list(dict.fromkeys(wanted))


class GalleryWriter:
    """Writes the samples of one report as image files to `out/images`, each once."""

    def __init__(self, data: ReportData, out: Path) -> None:
        self.data, self.out = data, out
        self._scores = {(t.split, t.modality.name): t for t in data.tables if t.row == DMP}
        self._panels: dict[tuple[str, str, str], Panel] = {}
        self._inputs: dict[tuple[str, str], ImageFile] = {}
        self._values: dict[tuple[str, str], str] = {}
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        (out / values.FOLDER).mkdir(exist_ok=True)

    def split(self, split: str) -> SplitGallery:
        """Write the split's images."""
        samples = {sample.key: sample for sample in self.data.samples[split]}
        first = list(samples.values())[: self.data.gallery]
        scored = split not in self.data.unscored
        shown = [m for m in self.data.modalities if _seen(m, samples.values())]
        spans = {m.name: m.span(_seen(m, samples.values())) for m in shown}
        return SplitGallery(
            split=split,
            title=split_name(split),
            scored=scored,
            shown=[self._shown(split, sample, shown, spans) for sample in first],
            cases=self._cases(split, samples, spans) if scored else {},
            bars=_colour_bars(shown, spans),
            keys=[(m.short, m.picture_key) for m in shown if m.picture_key],
            legends=[(m.short, _legend(m, samples.values())) for m in shown if isinstance(m, ClassMap)],
            errors=[(m.short.lower(), m.error_scale.label, m.error_scale.range_text) for m in shown],
            error_gradient=css_gradient(ERROR_MAP),
        )

    def _shown(self, split: str, sample: Sample, modalities: Sequence[Modality], spans: Spans) -> Shown:
        return Shown(
            key=sample.key,
            prompt=sample.prompt,
            keyword=sample.keyword,
            rgb=self._input(split, sample),
            panels=[self._panel(split, sample, modality, spans) for modality in modalities],
            source=sample.source,
            values=self._numbers(split, sample),
            classes=[name for m in modalities if isinstance(m, ClassMap) for name, _ in _legend(m, [sample])],
        )

    def _numbers(self, split: str, sample: Sample) -> str:
        place = (split, sample.key)
        if place not in self._values:
            path = f"{values.FOLDER}/{_file_name(sample.key)}.js"
            shown = [m for m in self.data.modalities if _seen(m, [sample])]
            (self.out / path).write_text(values.values_script(sample, shown, split not in self.data.unscored))
            self._values[place] = path
        return self._values[place]

    def _cases(self, split: str, samples: Mapping[str, Sample], spans: Spans) -> dict[str, list[Case]]:
        cases: dict[str, list[Case]] = {}
        for modality in self.data.modalities:
            table = self._scores.get((split, modality.name))
            picked = pick_cases(table, modality.image_metric) if table else {}
            found = [(rank, samples[key]) for rank, key in picked.items() if key in samples]
            for rank, sample in found:
                shown = self._shown(split, sample, [modality], spans)
                cases.setdefault(modality.name, []).append(Case(rank, shown, shown.panels[0]))
        return cases

    # ------------------------------------------------------------------------------- one image
    def _input(self, split: str, sample: Sample) -> ImageFile:
        place = (split, sample.key)
        if place not in self._inputs:
            self._inputs[place] = self._write_photo(sample)
        return self._inputs[place]

    def _panel(self, split: str, sample: Sample, modality: Modality, spans: Spans) -> Panel:
        place = (split, sample.key, modality.name)
        if place not in self._panels:
            self._panels[place] = self._render_panel(split, sample, modality, spans.get(modality.name))
        return self._panels[place]

    def _render_panel(self, split: str, sample: Sample, modality: Modality, span: tuple[float, float] | None) -> Panel:
        name = modality.name
        label, prediction = sample.labels.get(name), sample.predictions.get(name)
        error = None
        if label is not None and prediction is not None and split not in self.data.unscored:
            image = colourise_error(modality, prediction, label)
            error = self._write(image, sample, modality, "error")
        return Panel(
            modality=modality,
            label=self._map(sample, modality, "label", label, span),
            prediction=self._map(sample, modality, "prediction", prediction, span),
            error=error,
            **self._score(split, sample.key, modality),
        )

    def _map(
        self,
        sample: Sample,
        modality: Modality,
        kind: str,
        array: NDArray[Any] | None,
        span: tuple[float, float] | None,
    ) -> ImageFile | None:
        if array is None:
            return None
        return self._write(modality.colourise(array, span=span), sample, modality, kind, flat=modality.flat)

    def _score(self, split: str, key: str, modality: Modality) -> dict[str, Any]:
        """The panel's `score` and `value`."""
        table = self._scores.get((split, modality.name))
        if table is None or split in self.data.unscored:
            return {"score": ""}
        metric = modality.image_metric
        row = table.values.loc[table.values["key"] == key, metric.name]
        value = float(row.iloc[0]) if len(row) else None
        label = "" if metric.unit else f" {metric.label.removesuffix(' per image')}"
        text = format_number(value, metric.decimals, metric.unit) + label
        return {"score": text, "value": value if value is not None and math.isfinite(value) else None}

    def _write_photo(self, sample: Sample) -> ImageFile:
        return self._save(
            enlarge(sample.rgb, PHOTO),
            f"{sample.key}-rgb.jpg",
            f"Image {sample.key}: {sample.prompt or sample.source or sample.keyword}".rstrip(": "),
        )

    def _write(self, image: RGB, sample: Sample, modality: Modality, kind: str, *, flat: bool = False) -> ImageFile:
        longest = max(image.shape[:2])
        # PNG keeps class colours and tiny images exact; larger files would be too big.
        suffix = "png" if flat or longest <= THUMBNAIL // 2 else "jpg"
        small = image if longest <= THUMBNAIL else enlarge(image, THUMBNAIL, crisp=flat)
        saved = self._save(
            small,
            f"{sample.key}-{modality.name}-{kind}.{suffix}",
            f"{modality.title}, {'error map' if kind == 'error' else kind} of {sample.key}",
        )
        return replace(saved, kind=kind, modality=modality.name)

    def _save(self, image: RGB, name: str, alt: str) -> ImageFile:
        from PIL import Image

        path = f"{FOLDER}/{_file_name(name)}"
        options: dict[str, Any] = {"optimize": True} if name.endswith("png") else {"quality": 88, "subsampling": 0}
        Image.fromarray(np.ascontiguousarray(image)).save(self.out / path, **options)
        return ImageFile(path, alt, image.shape[1], image.shape[0])


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _colour_bars(modalities: Iterable[Modality], spans: Spans) -> list[ColourBar]:
    """Legends of scalar maps that are shown in colours."""
    return [
        ColourBar(m.short, css_gradient(m.colour_map), (m.value_text(span[0]), m.value_text(span[1])))
        for m in modalities
        if isinstance(m, ScalarMap) and m.colour_map and (span := spans[m.name])
    ]


def _legend(modality: ClassMap, samples: Iterable[Sample]) -> list[tuple[str, str]]:
    counts: Counter[int] = Counter()
    for classes in _seen(modality, samples):
        ids, pixels = np.unique(classes, return_counts=True)
        counts.update(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))
    names, palette = modality.classes, modality.display_palette
    known = [c for c, _ in counts.most_common() if c != modality.ignored and 0 <= c < len(names)]
    return [(names[c], "#{:02x}{:02x}{:02x}".format(*palette[c].tolist())) for c in known[:LEGEND_CLASSES]]


def _seen(modality: Modality, samples: Iterable[Sample]) -> list[NDArray[Any]]:
    """The modality's labels, or predictions if there are none: they define legends and ranges."""
    found = (sample.labels.get(modality.name, sample.predictions.get(modality.name)) for sample in samples)
    return [array for array in found if array is not None]
