"""everything → index.html and metrics.json"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import yaml

from dmp_core.config.stages import TASKS, RuntimeConfig, Task
from dmp_core.evaluation.protocol import ScoreTable
from dmp_core.labelers.encoding import LABEL_EXTENSIONS, decode_label
from dmp_core.progress import Progress, silent
from dmp_core.report import (
    ModelRecord,
    Provenance,
    ReportData,
    Sample,
    StageTiming,
    StatisticsCollector,
    TrainingRecord,
    build_report,
    keys_to_show,
)
from dmp_core.report.data import SplitStatistics
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.latents import column_array
from dmp_core.stages.plan import ReportStage
from dmp_core.stages.prompts import read_prompts
from dmp_core.store import Artefact, Manifest, read_artefact, staged_folder


def run(
    config: ReportStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Gather what every other stage left, and build the page."""
    gallery = config.pipeline["report"]["gallery"]
    tables = list(_tables(inputs))
    manifests = [artefact.published() for artefact in inputs.values()]
    splits = [name for name in config.pipeline["splits"] if f"images/{name}" in inputs]
    samples: dict[str, list[Sample]] = {}
    statistics: dict[str, SplitStatistics] = {}
    for done, split in enumerate(splits, 1):
        chosen = [table for table in tables if table.split == split]
        keys = keys_to_show(chosen, list(read_prompts(inputs[f"prompts/{split}"])["key"]), gallery)
        statistics[split], samples[split] = read_split(split, inputs, keys if split != "train" else [])
        progress(done, len(splits))
    data = ReportData(
        title=f"DMP: {config.pipeline['dataset']}",
        config_yaml=yaml.safe_dump(config.pipeline, sort_keys=False, width=100),
        metrics=_metrics(inputs),
        tables=tables,
        samples={split: chosen for split, chosen in samples.items() if chosen},
        unscored=[name for name, split in config.pipeline["splits"].items() if not split["scored"]],
        gallery=gallery,
        training=_training(inputs),
        statistics=statistics,
        timing=_timing(manifests),
        provenance=_provenance(config, manifests),
    )
    with staged_folder(out) as folder:
        build_report(data, folder)
    return StageResult(samples=sum(record.images for record in statistics.values()))


def _tables(inputs: Inputs) -> Iterator[ScoreTable]:
    for node_id, artefact in inputs.items():
        if node_id.startswith("evaluate/"):
            for path in sorted(artefact.local_path().glob("*.parquet")):
                yield ScoreTable.load(path)


def _metrics(inputs: Inputs) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for node_id, artefact in inputs.items():
        if node_id.startswith("evaluate/"):
            merged |= json.loads(artefact.read_bytes("metrics.json"))
    return merged


def read_split(split: str, inputs: Inputs, keys: Sequence[str]) -> tuple[SplitStatistics, list[Sample]]:
    """Statistics over the whole split, and the samples with these keys, in their order; one pass over the shards."""
    tasks = [task for task in TASKS if f"labels/{split}-{task}" in inputs]
    labels = {task: read_artefact(inputs[f"labels/{split}-{task}"]) for task in tasks}
    shown = {task: _predictions(inputs.get(f"predict/{split}-{task}-dmp"), task, keys) for task in tasks}
    collector, samples = StatisticsCollector(), []
    for image in read_artefact(inputs[f"images/{split}"]):
        key = image["__key__"]
        truth = {task: decode_label(task, next(column)[LABEL_EXTENSIONS[task]]) for task, column in labels.items()}
        record, rgb = json.loads(image["json"]), column_array("image", image)
        scene = record.get("scene", {})
        collector.update(
            record["prompt"],
            record["keyword"],
            rgb=rgb,
            segmentation=truth.get("segmentation"),
            depth=truth.get("depth"),
            family=scene.get("family") or "",
            style=scene.get("style") or "",
        )
        if key in keys:
            predicted = {task: found[key] for task, found in shown.items() if key in found}
            samples.append(Sample(key, record["prompt"], rgb, truth, predicted, record["keyword"]))
    return collector.result(), sorted(samples, key=lambda sample: keys.index(sample.key))


def _predictions(artefact: Artefact | None, task: Task, keys: Sequence[str]) -> dict[str, Any]:
    if artefact is None or not keys:
        return {}
    extension = LABEL_EXTENSIONS[task]
    samples = read_artefact(artefact)
    return {s["__key__"]: decode_label(task, s[extension]) for s in samples if s["__key__"] in keys}


def _training(inputs: Inputs) -> dict[str, TrainingRecord]:
    records = {}
    for node_id, artefact in inputs.items():
        if not node_id.startswith("train/"):
            continue
        manifest = artefact.published()
        card = json.loads(artefact.read_bytes("dmp.json"))
        finished = manifest.details.get("source") == "finished adapter"
        training = card.get("training", {})
        lora = training.get("lora", {})
        records[manifest.config["task"]] = TrainingRecord(
            source="shipped adapter" if finished else "trained in this run",
            curve=pd.read_csv(io.BytesIO(artefact.read_bytes("loss.csv"))) if artefact.exists("loss.csv") else None,
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
    generator = pipeline["prompts"]["generator"]
    if "model" in generator:
        models.insert(0, ModelRecord(generator["model"], "prompts", generator.get("revision") or ""))
    if "model" in pipeline["images"]:
        models.append(ModelRecord(pipeline["images"]["model"], "images", pipeline["images"]["revision"] or ""))
    return models


def announce(out: Artefact) -> None:
    """Keep a copy of the last asked-for report at a path that does not change: `<workspace>/report/`."""
    fs, latest = out.workspace.fs, f"{out.workspace.root}/report"
    if fs.exists(f"{latest}/manifest.json") and fs.cat_file(f"{latest}/manifest.json") == out.read_bytes(
        "manifest.json"
    ):
        return
    fresh = f"{latest}.new"
    for stale in (fresh, latest):
        if fs.exists(stale):
            fs.rm(stale, recursive=True)
    fs.copy(out.path, fresh, recursive=True)
    fs.mv(fresh, latest, recursive=True)
