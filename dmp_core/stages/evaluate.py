"""predictions + labels → metrics.json and per-image values, one artefact per modality"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
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
from dmp_core.scoring.constant import NothingLabelled
from dmp_core.scoring.protocol import (
    Scorer,
    ScoreTable,
    aggregate,
    constant_like,
    constant_prediction,
    map_like,
    mean_map,
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


KIND = StageKind("evaluate", version=3, typical=(0.05, 500), on_a_gpu=(0.1, 500), folder="evaluations")


class EvaluateStage(OfModality):
    splits: list[str]
    evaluate: EvaluateConfig
    gates: GatesField
    method: str = since("dmp")
    metrics: dict[str, int] = since({})
    """Version of every metric of the modality whose values have changed since the first one."""


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
    gates = gates_for(config.quality, [modality])
    learnt = draft.get(f"labels/train-{name}")
    inputs = {"labels_train": learnt, **draft.scores("train", gates)} if learnt else {}
    sources = other_sources(config)
    scored = [split for split in config.splits if draft.get(f"predict/{split}-{name}-ceiling")]
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
    own, modality = find_method(config.method).title, config.modality
    baselines = _baselines(config, inputs)
    total = len(config.splits) * (len(baselines) + len(config.evaluate.sources) + 2)
    tables: list[ScoreTable] = []
    for split in config.splits:
        labels, predicted, ceiling = (inputs[role] for role in roles(config.method, split))
        dropped = left_out(score_tables(inputs, split), config.gates, split)
        others = {f"{own} ({one})": inputs[source_role(config.method, one, split)] for one in config.evaluate.sources}
        rows = baselines | {own: predicted} | others | {CEILING: ceiling}
        for row, source in rows.items():
            scorer = Scorer(modality, row=row, split=split)
            for key, prediction, label in _pairs(modality, source, labels):
                if key not in dropped:
                    scorer.update(prediction[None], label[None], [key])
            tables.append(scorer.table())
            progress(len(tables), total)
    with staged_folder(out) as folder:
        for table in tables:
            table.save(folder / f"{table.split}-{_file_name(table.row)}.parquet")
        metrics = aggregate(tables, samples=config.evaluate.bootstrap_samples)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False))
    return StageResult(samples=sum(len(table.values) for table in tables if table.row == own))


def _baselines(config: EvaluateStage, inputs: Inputs) -> dict[str, Prediction]:
    """The baselines that use the training labels and not the image; none without a valid training label."""
    if "labels_train" not in inputs:
        return {}
    modality, unused = config.modality, left_out(score_tables(inputs, "train"), config.gates, "train")

    def training() -> Iterator[np.ndarray]:
        return (label for key, label in read_labels(inputs["labels_train"], modality) if key not in unused)

    try:
        constant, everywhere = constant_prediction(modality, training()), mean_map(modality, training())
    except NothingLabelled:
        return {}
    return {
        CONSTANT: lambda label: constant_like(modality, constant, label[None])[0],
        MEAN_MAP: lambda label: map_like(modality, everywhere, label),
    }


def _pairs(modality: Modality, source: Prediction, labels: Artefact) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(key, prediction, label) of every sample."""
    if not isinstance(source, Artefact):
        yield from ((key, source(label), label) for key, label in read_labels(labels, modality))
        return
    unlabelled, skipped = labels.published().skipped, source.published().skipped
    predictions = (pair for pair in read_labels(source, modality) if pair[0] not in unlabelled)
    for key, label in read_labels(labels, modality):
        if key in skipped:
            yield key, np.full(label.shape, np.nan), label
            continue
        predicted, prediction = next(predictions, (None, None))
        if predicted != key or prediction is None:
            raise InputError(f"{source.path}: predicts {predicted} where the labels have {key}; run predict again")
        yield key, prediction, label
    if (left := next(predictions, None)) is not None:
        raise InputError(f"{source.path}: predicts {left[0]}, which has no label; run predict again")


def _file_name(row: str) -> str:
    return row.lower().replace(" ", "-")
