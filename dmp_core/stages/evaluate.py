"""predictions + labels → metrics.json and per-image values, one artefact per modality"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dmp_core.dataset.reading import read_labels
from dmp_core.errors import InputError
from dmp_core.methods.registry import find_method
from dmp_core.modalities import Modality
from dmp_core.progress import Progress, silent
from dmp_core.quality.gates import gates_for
from dmp_core.quality.tables import left_out, score_tables
from dmp_core.runtime import RuntimeConfig
from dmp_core.scoring.constant import NothingLabelled, fit_blind
from dmp_core.scoring.protocol import (
    Scorer,
    ScoreTable,
    aggregate,
    constant_like,
    map_like,
)
from dmp_core.scoring.registry import CEILING, CONSTANT, MEAN_MAP
from dmp_core.scoring.settings import EvaluateConfig
from dmp_core.settings import since
from dmp_core.stages.base import (
    Draft,
    GatesField,
    Inputs,
    OfModality,
    StageKind,
    StageResult,
    of_modality,
    other_sources,
)
from dmp_core.store import Artefact, staged_folder

Prediction = Artefact | Callable[[np.ndarray], np.ndarray]
"""Stored predictions, or a baseline: a function that only uses the label's shape."""


_MOST_VALUES = {"cpu": 2**20, "cuda": 2**23}
"""Values of labels that are scored at a time: a normal map of 512 x 512 pixels, or ten."""
KIND = StageKind("evaluate", version=3, typical=(0.05, 500), on_a_gpu=(0.1, 500), folder="evaluations")


class EvaluateStage(OfModality):
    splits: list[str]
    evaluate: EvaluateConfig
    gates: GatesField
    method: str = since("dmp")
    metrics: dict[str, int] = since({})
    """Version of every metric of the modality whose values have changed since the first one."""

    @property
    def on_device(self) -> bool:
        return True


class Roles(NamedTuple):
    """Names of a split's inputs."""

    labels: str
    predicted: str
    ceiling: str


def roles(method: str, split: str) -> Roles:
    return Roles(f"labels_{split}", f"{method}_{split}", f"ceiling_{split}")


def source_role(method: str, source: str, split: str) -> str:
    """Name of the input with the predictions for another source of x."""
    return f"{method}_{source}_{split}"


def add(draft: Draft, modality: Modality) -> None:
    """Scores of all splits that have labels; no node if no split has any."""
    config, name, method = draft.config, modality.name, draft.config.train.method
    scored = [split for split in config.splits if draft.get(f"predict/{split}-{name}-ceiling")]
    gates = gates_for(config.quality, [modality], ["train", *scored])
    learnt = draft.get(f"labels/train-{name}")
    inputs = {"labels_train": learnt, **draft.scores("train", gates)} if learnt else {}
    sources = other_sources(config)
    for split in scored:
        nodes = (f"labels/{split}-{name}", f"predict/{split}-{name}-{method}", f"predict/{split}-{name}-ceiling")
        inputs |= {role: draft[node] for role, node in zip(roles(method, split), nodes, strict=True)}
        inputs |= {source_role(method, source, split): draft[f"{nodes[1]}-{source}"] for source in sources}
        inputs |= draft.scores(split, gates)
    if scored:
        stage = EvaluateStage(
            **of_modality(config, modality),
            splits=scored,
            evaluate=config.evaluate.model_copy(update={"sources": sources}),
            gates=gates,
            method=method,
            metrics={metric.name: metric.version for metric in modality.metrics if metric.version > 1},
        )
        draft.add(KIND, name, stage, inputs, sum(draft[f"images/{split}"].samples for split in scored))


def run(
    config: EvaluateStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Score every split's predictions, the VAE ceiling and, if there are training labels, the baselines from these.

    Samples that the gates drop, in the splits and in the training labels, are not used, nor are samples without a
    label. A sample whose prediction was skipped gets the worst possible score.
    """
    import torch

    own, modality = find_method(config.method).title, config.modality
    baselines = _baselines(config, inputs)
    total, tables = len(config.splits), []
    with torch.device(_device(runtime)):
        for number, split in enumerate(config.splits, 1):
            labels, predicted, ceiling = (inputs[role] for role in roles(config.method, split))
            dropped = left_out(score_tables(inputs, split), config.gates, split)
            others = {
                f"{own} ({one})": inputs[source_role(config.method, one, split)] for one in config.evaluate.sources
            }
            rows = baselines | {own: predicted} | others | {CEILING: ceiling}
            tables += scored(modality, split, rows, labels, dropped)
            progress(number, total)
    with staged_folder(out) as folder:
        for table in tables:
            table.save(folder / f"{table.split}-{_file_name(table.row)}.parquet")
        metrics = aggregate(tables, samples=config.evaluate.bootstrap_samples)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False))
    return StageResult(samples=sum(len(table.values) for table in tables if table.row == own))


def _device(runtime: RuntimeConfig) -> str:
    """Where scores are computed, in double precision, which Apple's GPUs lack."""
    from dmp_core.weights.load import choose_device

    device = choose_device(runtime.device)
    return "cpu" if device == "mps" else device


def _baselines(config: EvaluateStage, inputs: Inputs) -> dict[str, Prediction]:
    """The baselines that use the training labels and not the image; none without a valid training label."""
    if "labels_train" not in inputs:
        return {}
    modality, unused = config.modality, left_out(score_tables(inputs, "train"), config.gates, "train")
    training = (label for key, label in read_labels(inputs["labels_train"], modality) if key not in unused)
    try:
        constant, everywhere = fit_blind(modality, training)
    except NothingLabelled:
        return {}
    return {
        CONSTANT: lambda label: constant_like(modality, constant, label[None])[0],
        MEAN_MAP: lambda label: map_like(modality, everywhere, label),
    }


def scored(
    modality: Modality, split: str, rows: Mapping[str, Prediction], labels: Artefact, dropped: Container[str]
) -> list[ScoreTable]:
    """The table of every row. Each label is read and decoded once, and scored in batches with all rows' predictions."""
    import torch

    most = _MOST_VALUES.get(torch.get_default_device().type, 0)
    scorers = {row: Scorer(modality, row=row, split=split) for row in rows}
    aligned = {row: _Aligned(modality, source, labels) for row, source in rows.items()}
    batch: list[tuple[str, np.ndarray, dict[str, np.ndarray]]] = []

    def flush() -> None:
        if batch:
            keys, true = [key for key, _, _ in batch], np.stack([label for _, label, _ in batch])
            for row, scorer in scorers.items():
                scorer.update(np.stack([predicted[row] for _, _, predicted in batch]), true, keys)
            batch.clear()

    for key, label in read_labels(labels, modality):
        predicted = {row: source(key, label) for row, source in aligned.items()}
        if key in dropped:
            continue
        if batch and (batch[0][1].shape != label.shape or (len(batch) + 1) * label.size > most):
            flush()
        batch.append((key, label, predicted))
    flush()
    for source in aligned.values():
        source.check_finished()
    return [scorer.table() for scorer in scorers.values()]


class _Aligned:
    """A row's prediction for each label, in the labels' order."""

    def __init__(self, modality: Modality, source: Prediction, labels: Artefact) -> None:
        self.source = source
        self.skipped: Container[str] = ()
        self.stored: Iterator[tuple[str, np.ndarray]] = iter(())
        if isinstance(source, Artefact):
            unlabelled, self.skipped = labels.published().skipped, source.published().skipped
            self.stored = (pair for pair in read_labels(source, modality) if pair[0] not in unlabelled)

    def __call__(self, key: str, label: np.ndarray) -> np.ndarray:
        if not isinstance(self.source, Artefact):
            return self.source(label)
        if key in self.skipped:
            return np.full(label.shape, np.nan)
        predicted, prediction = next(self.stored, (None, None))
        if predicted != key or prediction is None:
            raise InputError(f"{self.source.path}: predicts {predicted} where the labels have {key}; run predict again")
        if prediction.shape != label.shape:
            shapes = f"predicts {prediction.shape} for {key}, whose label is {label.shape}"
            raise InputError(f"{self.source.path}: {shapes}; run predict again")
        return prediction

    def check_finished(self) -> None:
        if isinstance(self.source, Artefact) and (left := next(self.stored, None)) is not None:
            raise InputError(f"{self.source.path}: predicts {left[0]}, which has no label; run predict again")


def _file_name(row: str) -> str:
    return row.lower().replace(" ", "-")
