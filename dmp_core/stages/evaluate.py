"""predictions + labels → metrics.json and per-image values, one artefact a task"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np

from dmp_core.config.stages import RuntimeConfig, Task
from dmp_core.evaluation.protocol import Scorer, ScoreTable, aggregate, constant_like, constant_prediction
from dmp_core.evaluation.registry import CEILING, CONSTANT, DMP
from dmp_core.labelers.encoding import LABEL_EXTENSIONS, decode_label
from dmp_core.progress import Progress, silent
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.plan import EvaluateStage
from dmp_core.store import Artefact, read_artefact, staged_folder

ROWS = {"dmp": DMP, "ceiling": CEILING}


def run(
    config: EvaluateStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Score every split's predictions, the VAE ceiling and the constant fitted on the training labels."""
    constant = constant_prediction(
        config.task, (label for _, label in read_labels(inputs["labels_train"], config.task))
    )
    tables: list[ScoreTable] = []
    total = len(config.splits) * (len(ROWS) + 1)
    for split in config.splits:
        labels = inputs[f"labels_{split}"]
        tables.append(_score_constant(config.task, constant, labels, split))
        for role, row in ROWS.items():
            tables.append(_score(config.task, inputs[f"{role}_{split}"], labels, row, split))
            progress(len(tables), total)
    with staged_folder(out) as folder:
        for table in tables:
            table.save(folder / f"{table.split}-{_file_name(table.row)}.parquet")
        metrics = aggregate(tables, samples=config.evaluate.bootstrap_samples)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False))
    return StageResult(samples=sum(len(table.values) for table in tables if table.row == DMP))


def read_labels(artefact: Artefact, task: Task) -> Iterator[tuple[str, np.ndarray]]:
    """(key, label) of every sample of a label or prediction artefact, in the dataset's units."""
    for sample in read_artefact(artefact):
        yield sample["__key__"], decode_label(task, sample[LABEL_EXTENSIONS[task]])


def _score(task: Task, predicted: Artefact, labels: Artefact, row: str, split: str) -> ScoreTable:
    scorer = Scorer(task, row=row, split=split)
    for (key, prediction), (_, label) in zip(read_labels(predicted, task), read_labels(labels, task), strict=True):
        scorer.update(prediction[None], label[None], [key])
    return scorer.table()


def _score_constant(task: Task, constant: np.ndarray, labels: Artefact, split: str) -> ScoreTable:
    scorer = Scorer(task, row=CONSTANT, split=split)
    for key, label in read_labels(labels, task):
        scorer.update(constant_like(task, constant, label[None]), label[None], [key])
    return scorer.table()


def _file_name(row: str) -> str:
    return row.lower().replace(" ", "-")
