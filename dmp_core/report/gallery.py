"""Writes the report's pictures and says where they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import TASKS, Task
from dmp_core.evaluation.colours import IGNORED
from dmp_core.evaluation.protocol import ScoreTable, pick_cases
from dmp_core.evaluation.registry import DMP, image_metric
from dmp_core.report.data import ReportData, Sample
from dmp_core.report.pictures import (
    DEPTH_MAP,
    ERROR_MAP,
    ERROR_SCALES,
    RGB,
    class_names,
    colourise,
    colourise_error,
    css_gradient,
    depth_range,
    display_palette,
    enlarge,
)
from dmp_core.report.tables import SHORT_NAMES, TASK_NAMES, format_number, split_name

FOLDER = "images"
THUMBNAIL = 160
"""Longest side of a written map in pixels; keeps the report under 6 MB."""
PHOTO = 208
"""Longest side of a written input image; tiny ones are enlarged smoothly, since browsers do it badly."""
LEGEND_CLASSES = 24


@dataclass(frozen=True)
class Picture:
    """A written picture: its path relative to the page, its size and what it shows."""

    path: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Panel:
    """One task of one sample."""

    task: Task
    title: str
    label: Picture | None
    prediction: Picture | None
    error: Picture | None
    score: str
    """Per-image score with its unit; empty when the split is not scored."""


@dataclass(frozen=True)
class Shown:
    """One sample of the gallery."""

    key: str
    prompt: str
    keyword: str
    rgb: Picture
    panels: Sequence[Panel]
    source: str = ""


@dataclass(frozen=True)
class Case:
    """A best, median or worst image of one task."""

    rank: str
    shown: Shown
    panel: Panel


@dataclass(frozen=True)
class SplitGallery:
    """All pictures of one split."""

    split: str
    title: str
    scored: bool
    shown: Sequence[Shown]
    cases: Mapping[str, Sequence[Case]]
    """Per task: best, median, worst."""
    legend: Sequence[tuple[str, str]]
    """Class name and CSS colour, most frequent first."""
    depth_span: tuple[str, str]
    depth_gradient: str
    errors: Sequence[tuple[str, str, str]]
    """Task title, what the error map shows, its range."""
    error_gradient: str


def keys_to_show(tables: Iterable[ScoreTable], keys: Sequence[str], gallery: int = 8) -> list[str]:
    """Which samples of a split a report needs: the first `gallery` of `keys`, then the cases of DMP's tables.

    tables: the score tables of this split. The caller loads these samples alone.
    """
    wanted = list(keys[:gallery])
    for table in tables:
        if table.row == DMP:
            wanted.extend(pick_cases(table, image_metric(table.task)).values())
    return list(dict.fromkeys(wanted))


class Painter:
    """Turns the samples of one report into pictures under `out/images`, each written once."""

    def __init__(self, data: ReportData, out: Path) -> None:
        self.data, self.out = data, out
        self.palette = display_palette() if data.palette is None else np.asarray(data.palette)
        self._scores = {(t.split, t.task): t for t in data.tables if t.row == DMP}
        self._panels: dict[tuple[str, str, str], Panel] = {}
        self._inputs: dict[tuple[str, str], Picture] = {}
        (out / FOLDER).mkdir(parents=True, exist_ok=True)

    def split(self, split: str) -> SplitGallery:
        """Write the split's pictures."""
        samples = {sample.key: sample for sample in self.data.samples[split]}
        first = list(samples.values())[: self.data.gallery]
        scored = split not in self.data.unscored
        metres = depth_range(_seen("depth", samples.values()))
        tasks = [task for task in TASKS if any(task in s.labels or task in s.predictions for s in samples.values())]
        return SplitGallery(
            split=split,
            title=split_name(split),
            scored=scored,
            shown=[self._shown(split, sample, tasks, metres) for sample in first],
            cases=self._cases(split, samples, metres) if scored else {},
            legend=self._legend(samples.values()),
            depth_span=(f"{metres[0]:.1f} m", f"{metres[1]:.1f} m"),
            depth_gradient=css_gradient(DEPTH_MAP),
            errors=[(SHORT_NAMES[t].lower(), ERROR_SCALES[t].label, ERROR_SCALES[t].range_text) for t in tasks],
            error_gradient=css_gradient(ERROR_MAP),
        )

    def _shown(self, split: str, sample: Sample, tasks: Sequence[Task], metres: tuple[float, float]) -> Shown:
        panels = [self._panel(split, sample, task, metres) for task in tasks]
        return Shown(sample.key, sample.prompt, sample.keyword, self._input(split, sample), panels, sample.source)

    def _cases(self, split: str, samples: Mapping[str, Sample], metres: tuple[float, float]) -> dict[str, list[Case]]:
        cases: dict[str, list[Case]] = {}
        for task in TASKS:
            table = self._scores.get((split, task))
            picked = pick_cases(table, image_metric(task)) if table else {}
            found = [(rank, samples[key]) for rank, key in picked.items() if key in samples]
            for rank, sample in found:
                shown = self._shown(split, sample, [task], metres)
                cases.setdefault(task, []).append(Case(rank, shown, shown.panels[0]))
        return cases

    # ------------------------------------------------------------------------------- one picture
    def _input(self, split: str, sample: Sample) -> Picture:
        place = (split, sample.key)
        if place not in self._inputs:
            self._inputs[place] = self._write_photo(sample)
        return self._inputs[place]

    def _panel(self, split: str, sample: Sample, task: Task, metres: tuple[float, float]) -> Panel:
        place = (split, sample.key, task)
        if place not in self._panels:
            self._panels[place] = self._paint(split, sample, task, metres)
        return self._panels[place]

    def _paint(self, split: str, sample: Sample, task: Task, metres: tuple[float, float]) -> Panel:
        label, prediction = sample.labels.get(task), sample.predictions.get(task)
        error = None
        if label is not None and prediction is not None and split not in self.data.unscored:
            error = self._write(
                colourise_error(task, prediction, label), f"{sample.key}-{task}-error", f"{task}: error map"
            )
        return Panel(
            task=task,
            title=TASK_NAMES[task],
            label=self._map(sample, task, "label", label, metres),
            prediction=self._map(sample, task, "prediction", prediction, metres),
            error=error,
            score=self._score(split, sample.key, task),
        )

    def _map(
        self, sample: Sample, task: Task, kind: str, array: NDArray[Any] | None, metres: tuple[float, float]
    ) -> Picture | None:
        if array is None:
            return None
        picture = colourise(task, array, palette=self.palette, metres=metres)
        return self._write(picture, f"{sample.key}-{task}-{kind}", f"{task}: {kind}", flat=task == "segmentation")

    def _score(self, split: str, key: str, task: Task) -> str:
        table = self._scores.get((split, task))
        if table is None or split in self.data.unscored:
            return ""
        metric = image_metric(task)
        row = table.values.loc[table.values["key"] == key, metric.name]
        value = float(row.iloc[0]) if len(row) else None
        label = "" if metric.unit else f" {metric.label.removesuffix(' per image')}"
        return format_number(value, metric.decimals, metric.unit) + label

    def _write_photo(self, sample: Sample) -> Picture:
        return self._save(
            enlarge(sample.rgb, PHOTO),
            f"{sample.key}-rgb.jpg",
            f"Image: {sample.prompt or sample.source or sample.key}",
        )

    def _write(self, picture: RGB, name: str, alt: str, *, flat: bool = False) -> Picture:
        longest = max(picture.shape[:2])
        # PNG keeps class colours and tiny pictures exact; larger ones would weigh too much.
        suffix = "png" if flat or longest <= THUMBNAIL // 2 else "jpg"
        small = picture if longest <= THUMBNAIL else enlarge(picture, THUMBNAIL, crisp=flat)
        return self._save(small, f"{name}.{suffix}", alt)

    def _save(self, picture: RGB, name: str, alt: str) -> Picture:
        from PIL import Image

        file = re.sub(r"[^\w.-]", "_", name)
        path = f"{FOLDER}/{file}"
        options: dict[str, Any] = {"optimize": True} if name.endswith("png") else {"quality": 88, "subsampling": 0}
        Image.fromarray(np.ascontiguousarray(picture)).save(self.out / path, **options)
        return Picture(path, alt, picture.shape[1], picture.shape[0])

    def _legend(self, samples: Iterable[Sample]) -> list[tuple[str, str]]:
        counts: Counter[int] = Counter()
        for sample in samples:
            for classes in _seen("segmentation", [sample]):
                ids, pixels = np.unique(classes, return_counts=True)
                counts.update(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))
        names = class_names()
        known = [c for c, _ in counts.most_common() if c != IGNORED and c < min(len(names), len(self.palette))]
        return [(names[c], "#{:02x}{:02x}{:02x}".format(*self.palette[c].tolist())) for c in known[:LEGEND_CLASSES]]


def _seen(task: Task, samples: Iterable[Sample]) -> list[NDArray[Any]]:
    """The task's labels, or predictions where there are none: what legends and ranges go by."""
    found = (sample.labels.get(task, sample.predictions.get(task)) for sample in samples)
    return [array for array in found if array is not None]
