"""Content of a report: plain values and arrays, independent of stages and stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmp_core.modalities import Modality, built_in

if TYPE_CHECKING:
    import pandas as pd

    from dmp_core.scoring.protocol import ScoreTable


@dataclass(frozen=True)
class Sample:
    """One image with its labels, predictions and metadata. Arrays as described in `dmp_core.modalities`."""

    key: str
    prompt: str
    rgb: NDArray[np.uint8]
    """(H, W, 3)."""
    labels: Mapping[str, NDArray[Any]]
    """By modality name, as are predictions."""
    predictions: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    keyword: str = ""
    source: str = ""
    """Name and size of an imported image's file."""


@dataclass(frozen=True)
class SplitStatistics:
    """Counts over one split; `StatisticsCollector` makes them."""

    images: int
    keywords: Mapping[str, int] = field(default_factory=dict)
    """Images per keyword."""
    prompt_characters: Sequence[int] = ()
    """Length of every prompt."""
    class_pixels: Mapping[str, float] = field(default_factory=dict)
    """Share of the labelled pixels per class name, 0 to 1; of several class maps, names follow that of the map."""
    depth_metres: tuple[float, float, float] | None = None
    """5th percentile, median, 95th percentile of the valid pixels."""
    families: Mapping[str, int] = field(default_factory=dict)
    """Images per room family (rendered images)."""
    styles: Mapping[str, int] = field(default_factory=dict)
    """Images per painterly style (rendered images)."""
    traits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Trait of the captions → word of it → captions that name it, the most frequent first; none of imported images."""
    made_again: int = 0
    """Images that were made again since they missed what their caption names (`images.patience`)."""
    still_miss: int = 0
    """Those of them that miss it in every attempt."""
    mean_rgb: tuple[float, float, float] | None = None
    """Mean colour, [0, 1]."""
    failures: int = 0
    """Samples that were dropped."""


@dataclass(frozen=True)
class QualityRecord:
    """Samples that the quality gates dropped, and the scores that they used."""

    gates: Mapping[str, float] = field(default_factory=dict)
    """Gate → bound; gates of labels are named `<modality>.<gate>`."""
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Per split: gate → images that failed it first."""
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Score → its values over the images of all splits."""


@dataclass(frozen=True)
class TrainingRecord:
    """Training of one modality's adapter."""

    source: Literal["trained in this run", "shipped adapter", "finished adapter"]
    curve: pd.DataFrame | None = None
    """Columns step, loss, lr; one row per logged step."""
    seconds: float | None = None
    images: int | None = None
    """Training images, without their mirrored copies."""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    """Facts to list: rank, targets, trainable parameters, steps, file size, path, …"""


@dataclass(frozen=True)
class StageTiming:
    """One line of the timing table."""

    stage: str
    detail: str = ""
    """Split and modality, for example `train · normal`."""
    seconds: float | None = None
    """Time of the work, in this run or an earlier one."""
    samples: int | None = None
    cached: bool | None = None
    """Whether an earlier run did it; None: unknown, and not shown."""
    fingerprint: str = ""


@dataclass(frozen=True)
class ModelRecord:
    """One model that contributed to the results."""

    name: str
    used_for: str
    revision: str = ""
    sha256: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Provenance:
    """Origin of the numbers."""

    models: Sequence[ModelRecord] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Python version, platform, processors, seed, …"""


@dataclass(frozen=True)
class ReportData:
    """Everything that `build_report` shows. Sections of empty parts are omitted."""

    title: str
    config_yaml: str
    metrics: Mapping[str, Any]
    """Result of `dmp_core.scoring.protocol.aggregate`."""
    modalities: Sequence[Modality] = field(default_factory=built_in)
    """Modalities that may be shown, in this order."""
    tables: Sequence[ScoreTable] = ()
    """Per-image values, for the error distributions and the best and worst cases."""
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """Per split: the gallery's samples first, in order, then those of the cases (see `keys_to_show`)."""
    unscored: Sequence[str] = ("arbitrary", "styles")
    """Splits whose images are marked 'not scored'."""
    gallery: int = 8
    """Samples per split in the gallery."""
    training: Mapping[str, TrainingRecord] = field(default_factory=dict)
    statistics: Mapping[str, SplitStatistics] = field(default_factory=dict)
    quality: QualityRecord = field(default_factory=QualityRecord)
    timing: Sequence[StageTiming] = ()
    provenance: Provenance = field(default_factory=Provenance)
    summary: str = ""
    """One sentence under the title; empty: generated from the data."""
    notes: Sequence[str] = ()
    """Remarks for the reader: known limits, failures, skipped samples."""

    def title_of(self, modality: str) -> str:
        """Title of a modality, by its name."""
        return next((shown.title for shown in self.modalities if shown.name == modality), modality)
