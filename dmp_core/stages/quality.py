"""images or one label column → scores, `quality.parquet`; and what the stages that leave samples out make of them"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from dmp_core.errors import InputError
from dmp_core.modalities import Modality, find_modality
from dmp_core.progress import Progress, silent
from dmp_core.quality import (
    Gates,
    image_scores,
    kept,
    label_scores,
    nearest,
    nearest_earlier,
    nearest_earlier_prompt,
)
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.latents import column_array
from dmp_core.stages.node import QualityStage
from dmp_core.store import Artefact, Sample, read_artefact

FILE = "quality.parquet"
_CLIP_BATCH = 32


def run(
    config: QualityStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Score every sample of one split: its image and prompt, or its label."""
    if config.task is None:
        table = _image_table(config, inputs, runtime, progress)
    else:
        table = _label_table(find_modality(config.task, config.own), inputs["labels"], progress)
    numbers = table.select_dtypes("float").columns
    table[numbers] = table[numbers].round(6)
    out.write_bytes(FILE, table.to_parquet(index=False))
    return StageResult(samples=len(table))


def read_scores(artefact: Artefact) -> pd.DataFrame:
    """`key` and the scores of every sample, in the order of the split."""
    return pd.read_parquet(io.BytesIO(artefact.read_input(FILE)))


def score_tables(inputs: Mapping[str, Artefact], split: str) -> dict[str, pd.DataFrame]:
    """The score tables of one split among a stage's inputs: `image`, or a modality's name → table."""
    prefix = f"quality_{split}_"
    return {role.removeprefix(prefix): read_scores(inputs[role]) for role in inputs if role.startswith(prefix)}


def left_out(tables: Mapping[str, pd.DataFrame], gates: Gates, split: str) -> dict[str, str]:
    """Key → gate that it failed, of every sample that is to be left out.

    Raises InputError, which names the gates, when none would remain.
    """
    keys, reasons = kept(tables, gates)
    if reasons and not keys:
        counts = ", ".join(f"{gate} {count}" for gate, count in drop_counts(reasons).items())
        raise InputError(
            f"quality: the gates leave none of the {len(reasons)} samples of split {split!r} ({counts}); "
            "loosen them under `quality`, or set them to null"
        )
    return reasons


FAILED = "failed"
"""Stands among the gates for samples that were skipped (`runtime.on_bad_sample`)."""


def skipped(artefacts: Iterable[Artefact]) -> dict[str, str]:
    """Key → reason, of every sample that one of these artefacts lacks since it was skipped."""
    return {key: reason for artefact in artefacts for key, reason in artefact.published().skipped.items()}


def failed(artefacts: Iterable[Artefact]) -> dict[str, str]:
    """The same with `failed` for the reason, as it is counted among the gates."""
    return dict.fromkeys(sorted(skipped(artefacts)), FAILED)


def drop_counts(reasons: Mapping[str, str]) -> dict[str, int]:
    """Samples per gate, the most frequent first."""
    return {str(gate): int(count) for gate, count in pd.Series(list(reasons.values())).value_counts().items()}


def score_records(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Key → table → score, as JSON can hold them; scores that are missing are left out."""
    records: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        for row in json.loads(table.to_json(orient="records", double_precision=6)):
            key = row.pop("key")
            records.setdefault(key, {})[name] = {score: value for score, value in row.items() if value is not None}
    return records


# ------------------------------------------------------------------------------ image and prompt
def _image_table(config: QualityStage, inputs: Inputs, runtime: RuntimeConfig, progress: Progress) -> pd.DataFrame:
    images = inputs["images"]
    total, rows = images.published().samples, []
    for row in _image_rows(images, config.clip_model, runtime):
        rows.append(row)
        progress(len(rows), total)
    table = pd.DataFrame(rows).astype({"flagged": "boolean"})
    _add_nearest(table, table, "hash_distance", "nearest")
    tests = [read_scores(artefact) for role, artefact in inputs.items() if role.startswith("test_")]
    if tests:
        _add_nearest(table, pd.concat(tests, ignore_index=True), "test_distance", "test_nearest")
    likeness, index = nearest_earlier_prompt(list(table.pop("prompt")))
    table["prompt_similarity"] = likeness
    table["prompt_nearest"] = table["key"].reindex(index).to_numpy()
    return table


def _image_rows(images: Artefact, clip_model: str | None, runtime: RuntimeConfig) -> Iterator[dict[str, Any]]:
    """Key, prompt and the scores that an image has by itself."""
    samples = read_artefact(images)
    if clip_model is None:
        yield from (_image_row(sample)[0] for sample in samples)
        return
    from dmp_core.quality.clip import ClipScorer
    from dmp_core.weights.load import choose_device

    scorer = ClipScorer(clip_model, choose_device(runtime.device))
    while batch := [_image_row(sample) for sample in islice(samples, _CLIP_BATCH)]:
        cosines = scorer([rgb for _, rgb in batch], [row["prompt"] for row, _ in batch])
        for (row, _), cosine in zip(batch, cosines, strict=True):
            yield row | {"clip_score": cosine}


def _image_row(sample: Sample) -> tuple[dict[str, Any], Any]:
    record, rgb = json.loads(sample["json"]), column_array(None, sample)
    safety = record.get("safety") or {}
    row = {"key": sample["__key__"], "prompt": record.get("prompt") or "", "flagged": safety.get("flagged")}
    return row | image_scores(rgb), rgb


def _add_nearest(table: pd.DataFrame, pool: pd.DataFrame, distance_column: str, key_column: str) -> None:
    """Add the bits to, and the key of, the image in `pool` whose hash is nearest; in the table itself, before it."""
    hashed, others = (frame[frame["phash"].notna()] for frame in (table, pool))
    codes, other_codes = (np.array([int(code, 16) for code in frame["phash"]], np.uint64) for frame in (hashed, others))
    distance, index = nearest_earlier(codes) if pool is table else nearest(codes, other_codes)
    found = index >= 0
    rows = hashed.index[found]
    table[distance_column] = pd.Series(distance[found], index=rows, dtype="Int64")
    table[key_column] = pd.Series(others["key"].to_numpy()[index[found]], index=rows, dtype=object)


# ---------------------------------------------------------------------------------------- labels
def _label_table(modality: Modality, labels: Artefact, progress: Progress) -> pd.DataFrame:
    total, rows = labels.published().samples, []
    for sample in read_artefact(labels):
        scores = label_scores(modality, modality.stored(sample[modality.member]))
        rows.append({"key": sample["__key__"], **scores, **_flip_score(sample.get(f"{modality.name}.flip.json"))})
        progress(len(rows), total)
    return pd.DataFrame(rows)


def _flip_score(member: bytes | None) -> dict[str, Any]:
    if member is None:
        return {}
    difference = json.loads(member)
    return {f"flip_{difference['unit']}": difference["value"]}
