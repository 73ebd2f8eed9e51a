"""images or one label column → scores, `quality.parquet`; and how the stages that drop samples use them"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from dmp_core.dataset.reading import column_array
from dmp_core.modalities import Modality, find_modality
from dmp_core.modalities.registry import ModalityName
from dmp_core.modalities.settings import OwnModality
from dmp_core.progress import Progress, silent
from dmp_core.quality import (
    image_scores,
    label_scores,
    nearest,
    nearest_earlier,
    nearest_earlier_prompt,
)
from dmp_core.quality.tables import QUALITY_FILE, read_scores
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import Draft, Inputs, ModelUse, OfModality, StageKind, StageResult, StageSettings, share
from dmp_core.store import Artefact, Sample, read_artefact
from dmp_core.weights.resolve import identity

_CLIP_BATCH = 32


KIND = StageKind("quality", version=1, typical=(0.002, 100), on_a_gpu=(0.02, 100))


class QualityStage(StageSettings):
    split: str
    task: ModalityName | None
    """The modality whose labels are scored; None: image and prompt."""
    own: OwnModality | None = since(None)
    clip_model: str | None = None
    clip_hash: str | None = None

    def uses(self) -> Iterator[ModelUse]:
        if self.clip_model is not None:
            yield ModelUse("quality.clip_model", self.clip_model)

    @property
    def shared(self) -> dict[str, Any] | None:
        if self.task is not None or self.clip_model is None:
            return None
        return self.model_dump(mode="json", include={"clip_model", "clip_hash"})


def add(draft: Draft, split: str) -> None:
    """One table for images and prompts, and one per label column, so that a new labeler redoes only its own.

    Training images are also compared with those of the scored splits that share a keyword with them; so another test
    set retrains nothing.
    """
    config, images = draft.config, draft[f"images/{split}"]
    for labels in draft.labels(split).values():
        assert isinstance(labels.config, OfModality)
        stage = QualityStage(split=split, task=labels.config.task, own=labels.config.own)
        draft.add(KIND, labels.name, stage, {"labels": labels}, labels.samples)
    model = config.quality.clip_model
    clip_hash = identity(model, None, "priors", field="quality.clip_model") if model else None
    stage = QualityStage(split=split, task=None, clip_model=model, clip_hash=clip_hash)
    shared = [role.removeprefix("exclude_") for role in draft[f"prompts/{split}"].inputs]
    tested = [name for name in shared if name in config.splits and config.splits[name].scored]
    tests = {f"test_{name}": draft[f"quality/{name}"] for name in tested}
    draft.add(KIND, split, stage, {"images": images} | tests, images.samples)


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
    out.write_bytes(QUALITY_FILE, table.to_parquet(index=False))
    return StageResult(samples=len(table))


class _Columns:
    """Collects rows by column, which takes a fraction of the memory of a dict per row."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.columns: dict[str, list[Any]] = {}

    def add(self, row: dict[str, Any]) -> None:
        for name in row:
            self.columns.setdefault(name, [np.nan] * self.done)
        for name, values in self.columns.items():
            values.append(row.get(name, np.nan))
        self.done += 1
        self.progress(self.done, self.total)

    def table(self) -> pd.DataFrame:
        """The same as of a list of the rows; the rows are gone afterwards."""
        table = pd.DataFrame(self.columns)
        self.columns.clear()
        return table


# ------------------------------------------------------------------------------ image and prompt
def _image_table(config: QualityStage, inputs: Inputs, runtime: RuntimeConfig, progress: Progress) -> pd.DataFrame:
    scores = _Columns(inputs["images"].published().samples, progress)

    def prompts() -> Iterator[str]:
        for row in _image_rows(config, inputs, runtime):
            yield row.pop("prompt")
            scores.add(row)

    likeness, index = nearest_earlier_prompt(prompts())
    table = scores.table().astype({"flagged": "boolean"})
    _add_nearest(table, table, "hash_distance", "nearest")
    tests = [read_scores(artefact) for role, artefact in inputs.items() if role.startswith("test_")]
    if tests:
        _add_nearest(table, pd.concat(tests, ignore_index=True), "test_distance", "test_nearest")
    table["prompt_similarity"] = likeness
    table["prompt_nearest"] = table["key"].reindex(index).to_numpy()
    return table


def _image_rows(config: QualityStage, inputs: Inputs, runtime: RuntimeConfig) -> Iterator[dict[str, Any]]:
    """Key, prompt and the scores that depend on one image alone."""
    samples, clip_model = read_artefact(inputs["images"]), config.clip_model
    if clip_model is None:
        yield from (_image_row(sample)[0] for sample in samples)
        return
    from dmp_core.quality.clip import ClipScorer
    from dmp_core.weights.load import choose_device

    device = choose_device(runtime.device)
    with share(KIND, config, inputs, runtime, lambda: nullcontext(ClipScorer(clip_model, device))) as scorer:
        while batch := [_image_row(sample) for sample in islice(samples, _CLIP_BATCH)]:
            cosines = scorer()([rgb for _, rgb in batch], [row["prompt"] for row, _ in batch])
            for (row, _), cosine in zip(batch, cosines, strict=True):
                yield row | {"clip_score": cosine}


def _image_row(sample: Sample) -> tuple[dict[str, Any], Any]:
    record, rgb = json.loads(sample["json"]), column_array(None, sample)
    safety = record.get("safety") or {}
    row = {"key": sample["__key__"], "prompt": record.get("prompt") or "", "flagged": safety.get("flagged")}
    return row | image_scores(rgb), rgb


def _add_nearest(table: pd.DataFrame, pool: pd.DataFrame, distance_column: str, key_column: str) -> None:
    """Add distance (bits) and key of the nearest hash in `pool`; if that is the table itself, of those before it."""
    hashed, others = (frame[frame["phash"].notna()] for frame in (table, pool))
    codes, other_codes = (np.array([int(code, 16) for code in frame["phash"]], np.uint64) for frame in (hashed, others))
    distance, index = nearest_earlier(codes) if pool is table else nearest(codes, other_codes)
    found = index >= 0
    rows = hashed.index[found]
    table[distance_column] = pd.Series(distance[found], index=rows, dtype="Int64")
    table[key_column] = pd.Series(others["key"].to_numpy()[index[found]], index=rows, dtype=object)


# ---------------------------------------------------------------------------------------- labels
def _label_table(modality: Modality, labels: Artefact, progress: Progress) -> pd.DataFrame:
    scores = _Columns(labels.published().samples, progress)
    for sample in read_artefact(labels):
        own = label_scores(modality, modality.stored(sample[modality.member]))
        scores.add({"key": sample["__key__"], **own, **_flip_score(sample.get(f"{modality.name}.flip.json"))})
    return scores.table()


def _flip_score(member: bytes | None) -> dict[str, Any]:
    if member is None:
        return {}
    difference = json.loads(member)
    return {f"flip_{difference['unit']}": difference["value"]}
