"""all artefacts → index.html, its images and values, single.html and metrics.json"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import yaml

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.dataset.reading import column_array, read_prompts
from dmp_core.diffusion.card import CARD_FILE
from dmp_core.modalities import Modality
from dmp_core.modalities.registry import modalities_of
from dmp_core.progress import Progress, silent
from dmp_core.prompts.variety import traits_of
from dmp_core.quality import IMAGE, bounds_by_name, doubts, gates_for
from dmp_core.quality.settings import QualityConfig
from dmp_core.quality.tables import drop_counts, failed, left_out, read_scores
from dmp_core.report import (
    ModelRecord,
    Provenance,
    QualityRecord,
    ReportData,
    Sample,
    StageTiming,
    StatisticsCollector,
    TrainingRecord,
    build_report,
    keys_to_show,
)
from dmp_core.report.data import SplitStatistics
from dmp_core.report.tables import split_name
from dmp_core.runtime import RuntimeConfig
from dmp_core.scoring.protocol import ScoreTable
from dmp_core.stages.base import Draft, Inputs, StageKind, StageResult, StageSettings, quality_node
from dmp_core.store import Artefact, Lock, Manifest, read_artefact, staged_folder
from dmp_core.store.folders import mirror
from dmp_core.synthesis.patience import made_again

KIND = StageKind("report", version=1, typical=(0.1, 10_000), on_a_gpu=(0.2, 10_000), folder="reports")


class ReportStage(StageSettings):
    pipeline: dict[str, Any]
    """The whole configuration, to be shown, except `runtime` and settings that DMP does not use."""


def add(draft: Draft) -> None:
    """DMP's own page; other methods are compared with it by `dmp compare`."""
    config = draft.config
    if config.train.method == "dmp":
        inputs = {node.id: node for node in draft.by_id.values() if node.stage != "latents"}
        draft.add(KIND, config.dataset, ReportStage(pipeline=_as_first_written(config)), inputs)


def _as_first_written(config: PipelineConfig) -> dict[str, Any]:
    """The configuration under the field names that reports' fingerprints use."""
    values = config.model_dump(mode="json", exclude={"runtime", "editor"})
    return {"tasks" if name == "modalities" else name: value for name, value in values.items()}


def run(
    config: ReportStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Collect the results of all other stages, and build the page."""
    gallery = config.pipeline["report"]["gallery"]
    modalities = modalities_of(config.pipeline)
    tables = list(_tables(inputs, modalities))
    manifests = [artefact.published() for artefact in inputs.values()]
    splits = [name for name in config.pipeline["splits"] if f"images/{name}" in inputs]
    dropped, quality = _quality(config, inputs, splits, modalities)
    samples: dict[str, list[Sample]] = {}
    statistics: dict[str, SplitStatistics] = {}
    for done, split in enumerate(splits, 1):
        chosen = [table for table in tables if table.split == split]
        good = [key for key in read_prompts(inputs[f"prompts/{split}"])["key"] if key not in dropped[split]]
        keys = keys_to_show(chosen, good, gallery) if split != "train" else []
        statistics[split], samples[split] = read_split(split, inputs, keys, dropped[split], modalities)
        progress(done, len(splits))
    data = ReportData(
        title=f"DMP: {config.pipeline['dataset']}",
        config_yaml=yaml.safe_dump(config.pipeline, sort_keys=False, width=100),
        modalities=modalities,
        metrics=_metrics(inputs),
        tables=tables,
        samples={split: chosen for split, chosen in samples.items() if chosen},
        unscored=[name for name in splits if name not in {table.split for table in tables}],
        gallery=gallery,
        training=_training(inputs),
        statistics=statistics,
        quality=quality,
        timing=_timing(manifests),
        provenance=_provenance(config, manifests),
        notes=[note for split in splits for note in _doubts(config, inputs, split, dropped[split], modalities)],
    )
    with staged_folder(out) as folder:
        build_report(data, folder)
    return StageResult(samples=sum(record.images for record in statistics.values()))


def _tables(inputs: Inputs, modalities: Iterable[Modality]) -> Iterator[ScoreTable]:
    known = {modality.name: modality for modality in modalities}
    for node_id, artefact in inputs.items():
        if node_id.startswith("evaluate/"):
            for path in sorted(artefact.local_path().glob("*.parquet")):
                yield ScoreTable.load(path, known[artefact.published().config["task"]])


def _metrics(inputs: Inputs) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for node_id, artefact in inputs.items():
        if node_id.startswith("evaluate/"):
            merged |= json.loads(artefact.read_input("metrics.json"))
    return merged


_SHOWN_SCORES = ("std", "sharpness", "hash_distance", "test_distance", "prompt_similarity", "clip_score")


def _quality(
    config: ReportStage, inputs: Inputs, splits: Iterable[str], modalities: Sequence[Modality]
) -> tuple[dict[str, dict[str, str]], QualityRecord]:
    """The samples of each split that the merged dataset drops, by key, and their numbers."""
    asked = {modality.name: modality for modality in modalities}
    chosen = [asked[name] for name in config.pipeline["tasks"]]
    gates = gates_for(QualityConfig.model_validate(config.pipeline["quality"]), chosen)
    dropped: dict[str, dict[str, str]] = {}
    scores: dict[str, list[float]] = {}
    names = [modality.name for modality in modalities]
    for split in splits:
        nodes = {table: quality_node(split, table) for table in (IMAGE, *names)}
        tables = {table: read_scores(inputs[node]) for table, node in nodes.items() if node in inputs}
        columns = [inputs[f"images/{split}"], *_labels(inputs, split, names)]
        dropped[split] = left_out(tables, gates, split) | failed(columns)
        for name in _SHOWN_SCORES:
            if name in tables[IMAGE]:
                scores.setdefault(name, []).extend(tables[IMAGE][name].dropna().astype(float))
    counts = {split: drop_counts(reasons) for split, reasons in dropped.items()}
    return dropped, QualityRecord(bounds_by_name(gates), counts, scores)


def _labels(inputs: Inputs, split: str, names: Iterable[str]) -> Iterator[Artefact]:
    yield from (inputs[node] for name in names if (node := f"labels/{split}-{name}") in inputs)


def _doubts(
    config: ReportStage, inputs: Inputs, split: str, dropped: Collection[str], modalities: Iterable[Modality]
) -> Iterator[str]:
    """Labels of user-provided images that are probably invalid."""
    if not config.pipeline["splits"][split].get("folder"):
        return
    tables: dict[str, pd.DataFrame] = {}
    for modality in modalities:
        labels = inputs.get(f"labels/{split}-{modality.name}")
        scores = inputs.get(quality_node(split, modality.name))
        if labels and scores and labels.published().config["labeler"]["kind"] == "exact":
            table = read_scores(scores)
            tables[modality.name] = table[~table["key"].isin(dropped)]
    quality = QualityConfig.model_validate(config.pipeline["quality"])
    yield from (f"{split_name(split)}: {line}" for line in doubts(tables, quality))


def read_split(
    split: str,
    inputs: Inputs,
    keys: Sequence[str],
    dropped: Collection[str],
    modalities: Sequence[Modality],
) -> tuple[SplitStatistics, list[Sample]]:
    """Statistics of the split without dropped samples, and the samples with these keys, in their order; in one pass."""
    labelled = [modality for modality in modalities if f"labels/{split}-{modality.name}" in inputs]
    labels = {modality: _Column(inputs[f"labels/{split}-{modality.name}"]) for modality in labelled}
    shown = {m.name: _predictions(inputs.get(f"predict/{split}-{m.name}-dmp"), m, keys) for m in modalities}
    collector, samples, made = StatisticsCollector(modalities), [], inputs[f"images/{split}"].published()
    collector.drop(len(made.skipped))
    for image in read_artefact(inputs[f"images/{split}"]):
        key = image["__key__"]
        found = {modality: label for modality, column in labels.items() if (label := column.of(key)) is not None}
        truth = {modality.name: column_array(modality, label) for modality, label in found.items()}
        record, rgb = json.loads(image["json"]), column_array(None, image)
        scene = record.get("scene", {})
        if key in dropped:
            collector.drop()
        else:
            collector.update(
                record["prompt"],
                record["keyword"],
                rgb=rgb,
                labels=truth,
                family=scene.get("family") or "",
                style=scene.get("style") or "",
                traits={} if "source" in record else traits_of(record["prompt"], record["keyword"]),
            )
        if key in keys:
            predicted = {name: answers[key] for name, answers in shown.items() if key in answers}
            source = _source(record.get("source"))
            samples.append(Sample(key, record["prompt"], rgb, truth, predicted, record["keyword"], source))
    statistics = replace(collector.result(), **made_again(made.details))
    return statistics, sorted(samples, key=lambda sample: keys.index(sample.key))


class _Column:
    """The labels of one modality, read together with the images; a skipped sample has none."""

    def __init__(self, artefact: Artefact) -> None:
        self.skipped, self.samples = artefact.published().skipped, read_artefact(artefact)

    def of(self, key: str) -> dict[str, Any] | None:
        return None if key in self.skipped else next(self.samples)


def _source(origin: dict[str, Any] | None) -> str:
    return f"{origin['file']}, {origin['width']} × {origin['height']}" if origin else ""


def _predictions(artefact: Artefact | None, modality: Modality, keys: Sequence[str]) -> dict[str, Any]:
    if artefact is None or not keys:
        return {}
    samples = read_artefact(artefact)
    return {sample["__key__"]: column_array(modality, sample) for sample in samples if sample["__key__"] in keys}


def _training(inputs: Inputs) -> dict[str, TrainingRecord]:
    records = {}
    for node_id, artefact in inputs.items():
        if not node_id.startswith("train/"):
            continue
        manifest = artefact.published()
        card = json.loads(artefact.read_input(CARD_FILE)) if artefact.exists(CARD_FILE) else {}
        finished = manifest.details.get("source") == "finished adapter"
        training = card.get("training", {})
        lora = training.get("lora", {})
        records[manifest.config["task"]] = TrainingRecord(
            source=_origin(str(manifest.details.get("adapter"))) if finished else "trained in this run",
            curve=pd.read_csv(io.BytesIO(artefact.read_input("loss.csv"))) if artefact.exists("loss.csv") else None,
            seconds=None if finished else manifest.seconds,
            images=card.get("samples"),
            adapter={
                "prediction": card.get("prediction"),
                "schedule": ", ".join(f"{name} {value}" for name, value in card.get("schedule", {}).items()),
                "rank": lora.get("rank"),
                "targets": lora.get("targets"),
                "steps": training.get("steps"),
                "batch size": training.get("batch_size"),
                "learning rate": training.get("learning_rate"),
                "file size": f"{sum(record.bytes for record in manifest.files) / 1e6:.1f} MB",
            },
        )
    return records


def _origin(adapter: str) -> Literal["shipped adapter", "finished adapter"]:
    return "shipped adapter" if adapter.startswith("shipped:") else "finished adapter"


def _timing(manifests: Iterable[Manifest]) -> list[StageTiming]:
    return [
        StageTiming(
            stage=manifest.stage,
            detail=manifest.name,
            seconds=manifest.seconds,
            samples=manifest.samples,
            fingerprint=manifest.fingerprint,
        )
        for manifest in manifests
    ]


def _provenance(config: ReportStage, manifests: list[Manifest]) -> Provenance:
    packages: dict[str, str] = {}
    for manifest in manifests:
        packages |= manifest.packages
    return Provenance(
        models=_models(config.pipeline, manifests),
        packages=packages,
        environment={
            "python": platform.python_version(),
            "machine": platform.machine(),
            "seed": str(config.pipeline["seed"]),
        },
    )


def _models(pipeline: dict[str, Any], manifests: list[Manifest]) -> list[ModelRecord]:
    hashes = {manifest.config["base_hash"] for manifest in manifests if "base_hash" in manifest.config}
    base = pipeline["base"]
    models = [ModelRecord(base["model"], "prior", base["revision"] or "", ", ".join(sorted(hashes)))]
    generator, made = pipeline["prompts"]["generator"], any(not s.get("folder") for s in pipeline["splits"].values())
    if "model" in generator and made:
        models.insert(0, ModelRecord(generator["model"], "prompts", generator.get("revision") or ""))
    if "model" in pipeline["images"] and made:
        models.append(ModelRecord(pipeline["images"]["model"], "images", pipeline["images"]["revision"] or ""))
    return models


def announce(out: Artefact) -> None:
    """Copy the last requested report to a path that does not change: `<workspace>/report/`."""
    fs, latest = out.workspace.fs, f"{out.workspace.root}/report"
    if fs.exists(f"{latest}/manifest.json") and fs.cat_file(f"{latest}/manifest.json") == out.read_bytes(
        "manifest.json"
    ):
        return
    with Lock(out.workspace, "report") as lock:
        lock.wait()
        mirror(fs, out.path, latest)
