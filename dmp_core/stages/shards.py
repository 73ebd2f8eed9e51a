"""images + labels → the merged dataset that users open: `datasets/<name>/<split>/`"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from PIL import Image

from dmp_core.config.stages import RuntimeConfig
from dmp_core.errors import InputError
from dmp_core.progress import Progress, silent
from dmp_core.report.dataset_card import MEMBERS, card_from_manifests
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.plan import ShardsStage
from dmp_core.store import (
    Artefact,
    Manifest,
    Sample,
    ShardPlan,
    canonical_json,
    shard_plans,
    shard_reader,
    write_shards,
)


def run(
    config: ShardsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Zip the columns by key into one sample each; shards keep the images' layout."""
    plans = shard_plans(inputs["images"])
    _drop_surplus(out, plans)
    readers = {role: shard_reader(artefact) for role, artefact in inputs.items()}

    def produce(plan: ShardPlan) -> Iterator[Sample]:
        columns = {role: read(plan.index) for role, read in readers.items()}
        for position, key in enumerate(plan.keys):
            yield _merge(key, {role: samples[position] for role, samples in columns.items()}, config)

    files = write_shards(out, plans, produce, only=shards, progress=progress)
    shardlist = [{"url": record.name, "nsamples": record.samples} for record in files]
    out.write_bytes("index.json", json.dumps({"wids_version": 1, "shardlist": shardlist}, indent=1).encode())
    return StageResult(samples=sum(len(plan.keys) for plan in plans), files=files, details=_details(inputs))


def announce(out: Artefact) -> None:
    """Write the card of the whole dataset beside its splits, if it says anything new."""
    fs, folder = out.workspace.fs, out.path.rsplit("/", 1)[0]
    paths = sorted(fs.glob(f"{folder}/*/manifest.json"))
    manifests = {path.rsplit("/", 2)[-2]: Manifest.model_validate_json(fs.cat_file(path)) for path in paths}
    card = card_from_manifests(manifests).encode()
    if not fs.exists(f"{folder}/README.md") or fs.cat_file(f"{folder}/README.md") != card:
        fs.pipe_file(f"{folder}/README.md", card)


def _details(inputs: Inputs) -> dict[str, Any]:
    """What the dataset's card tells of this split."""
    manifests = {role: artefact.published() for role, artefact in inputs.items()}
    made = manifests.pop("images")
    settings = made.config["images"]
    return {
        "keywords": made.details["keywords"],
        "prompts": ", ".join(made.details["prompts"]),
        "resolution": [settings["resolution"], settings["resolution"]],
        "generator": settings["kind"] if settings["kind"] == "render" else f"{settings['kind']}: {settings['model']}",
        "labelers": {task: manifest.config["labeler"]["kind"] for task, manifest in manifests.items()},
    }


def _merge(key: str, parts: dict[str, Sample], config: ShardsStage) -> Sample:
    """One sample of the merged dataset; its json says what each column is and where it comes from."""
    if any(part["__key__"] != key for part in parts.values()):
        keys = {role: part["__key__"] for role, part in parts.items()}
        raise InputError(f"datasets/{config.dataset}/{config.split}: columns disagree at {key}: {keys}; rerun labels")
    record = json.loads(parts["images"]["json"])
    record["labels"] = {role: " ".join(MEMBERS[role][1:]) for role in parts if role != "images"}
    record["palette"] = config.palette
    merged: Sample = {"__key__": key, **_image(parts["images"]["png"], config.shards.image_format)}
    for role, part in parts.items():
        if role != "images":
            merged |= {name: data for name, data in part.items() if name != "__key__"}
    return merged | {"json": canonical_json(record).encode()}


def _image(png: bytes, image_format: str) -> dict[str, bytes]:
    if image_format == "png":
        return {"png": png}
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).save(buffer, format="JPEG", quality=95)
    return {"jpg": buffer.getvalue()}


def _drop_surplus(out: Artefact, plans: list[ShardPlan]) -> None:
    """The path is the dataset's own, without a fingerprint: what an older configuration left must go."""
    if out.manifest() is not None or not out.workspace.fs.exists(out.path):
        return
    keep = {name for plan in plans for name in (plan.name, plan.sidecar)}
    for path in out.workspace.fs.find(out.path):
        if path.rsplit("/", 1)[-1] not in keep:
            out.workspace.fs.rm(path)
