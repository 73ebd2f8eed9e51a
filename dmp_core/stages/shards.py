"""images + labels, without dropped samples → the merged dataset that users open: `datasets/<name>/<split>/`"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from dmp_core.dataset.settings import ShardsConfig
from dmp_core.errors import InputError
from dmp_core.modalities import Modality, find_modality
from dmp_core.modalities.settings import OwnModality
from dmp_core.progress import Progress, silent
from dmp_core.quality.gates import IMAGE, gates_for
from dmp_core.quality.tables import drop_counts, failed, left_out, score_reader, score_tables, skipped
from dmp_core.report.dataset_card import card_from_manifests, is_sealed, sealed
from dmp_core.report.dataset_record import Schema, record_schema, uniform_record
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import Draft, GatesField, Inputs, StageKind, StageResult, StageSettings
from dmp_core.store import (
    Artefact,
    Lock,
    Sample,
    ShardPlan,
    canonical_json,
    open_image,
    shard_plans,
    shard_reader,
    write_shards,
)
from dmp_core.store.workspace import README, Workspace, split_manifests
from dmp_core.synthesis.patience import made_again
from dmp_core.text import has_text

logger = logging.getLogger(__name__)

KIND = StageKind(
    "shards",
    version=3,
    typical=(0.01, 40_000),
    on_a_gpu=(0.03, 1_700_000),
    folder="datasets",
    sharded=True,
    stable=True,
)


class ShardsStage(StageSettings):
    dataset: str
    split: str
    shards: ShardsConfig
    palette: str
    gates: GatesField
    own_modalities: dict[str, OwnModality] = since({})

    def modality(self, name: str) -> Modality:
        return find_modality(name, self.own_modalities.get(name))


def add(draft: Draft, split: str) -> None:
    config, images = draft.config, draft[f"images/{split}"]
    columns = draft.labels(split)
    labelled = [modality for modality in config.chosen if modality.name in columns]
    stage = ShardsStage(
        dataset=config.dataset,
        split=split,
        shards=config.shards,
        palette=config.latents.palette,
        gates=gates_for(config.quality, labelled, [split]),
        own_modalities={m.name: config.own_modalities[m.name] for m in labelled if m.name in config.own_modalities},
    )
    scores = draft.scores(split, [IMAGE, *(modality.name for modality in labelled)])
    draft.add(KIND, f"{config.dataset}/{split}", stage, {"images": images} | columns | scores, images.samples)


def run(
    config: ShardsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Join the columns by key into samples; shards keep the images' layout, without dropped samples."""
    columns = columns_of(inputs)
    dropped = left_out(score_tables(inputs, config.split), config.gates, config.split) | failed(columns.values())
    plans = [plan for plan in _without(shard_plans(inputs["images"]), dropped) if plan.keys]
    if not plans:
        counts = drop_counts(dropped)
        raise InputError(f"datasets/{config.dataset}/{config.split}: no sample is left of {len(dropped)} ({counts})")
    _drop_surplus(out, plans)
    read = joined(config, inputs, lambda key: key not in dropped)
    files = write_shards(out, plans, lambda plan: read(plan.index), only=shards, progress=progress)
    shardlist = [{"url": record.name, "nsamples": record.samples} for record in files]
    out.write_bytes("index.json", json.dumps({"wids_version": 1, "shardlist": shardlist}, indent=1).encode())
    details = _details(columns) | {"dropped": drop_counts(dropped)}
    if lost := skipped(columns.values()):
        details["skipped"] = dict(sorted(lost.items()))
    return StageResult(samples=sum(len(plan.keys) for plan in plans), files=files, details=details)


def joined(config: ShardsStage, inputs: Inputs, wanted: Callable[[str], bool]) -> Callable[[int], Iterator[Sample]]:
    """Reads the wanted samples of one of the images' shards, by its number, as the merged dataset has them."""
    scores, columns = score_reader(score_tables(inputs, config.split)), columns_of(inputs)
    readers = {role: shard_reader(artefact) for role, artefact in columns.items()}
    modalities = {role: config.modality(role) for role in columns if role != "images"}
    schema = record_schema(modalities.values())

    def read(number: int) -> Iterator[Sample]:
        shard = {role: _by_key(read(number)) for role, read in readers.items()}
        keys = list(shard["images"])
        records = scores(keys[0], keys[-1]) if keys else {}
        for key in filter(wanted, keys):
            parts = {role: column[key] for role, column in shard.items() if key in column}
            yield _merge(key, parts, records.get(key, {}), config, modalities, schema)

    return read


def columns_of(inputs: Inputs) -> Inputs:
    """Images and labels, without the tables of scores."""
    return {role: artefact for role, artefact in inputs.items() if not role.startswith("quality_")}


def _by_key(samples: Iterable[Sample]) -> dict[str, Sample]:
    return {sample["__key__"]: sample for sample in samples}


def _without(plans: list[ShardPlan], dropped: Collection[str]) -> list[ShardPlan]:
    """Skipped samples are counted in the manifest, with those that the gates drop, and not per shard."""
    return [replace(plan, keys=tuple(key for key in plan.keys if key not in dropped), skipped={}) for plan in plans]


def announce(out: Artefact) -> None:
    """Write the card of the whole dataset next to its splits, if it has changed; one that somebody has edited stays."""
    folder, split = out.path.rsplit("/", 1)
    if _new_card(out.workspace, folder, split) is None:
        return
    with Lock(out.workspace, f"datasets-{folder.rsplit('/', 1)[-1]}") as lock:
        lock.wait()
        if (card := _new_card(out.workspace, folder, split)) is not None:
            out.workspace.write_bytes(folder, README, card.encode())


def _new_card(workspace: Workspace, folder: str, split: str) -> str | None:
    """What is to be written; None if it is there, or was edited. Earlier versions wrote the card without a seal."""
    found, path = split_manifests(workspace, folder), f"{folder}/{README}"
    card = card_from_manifests(found)
    there = workspace.fs.cat_file(path).decode(errors="replace") if workspace.fs.exists(path) else ""
    if there in (card, sealed(card)):
        return None
    others = {name: manifest for name, manifest in found.items() if name != split}
    if not has_text(there) or is_sealed(there) or (others and there == card_from_manifests(others)):
        return sealed(card)
    _say_kept(path, folder)
    return None


@cache  # once per file
def _say_kept(path: str, folder: str) -> None:
    logger.warning("%s: was edited, so it is kept; `dmp dataset card %s` prints the new one", path, folder)


def _details(inputs: Inputs) -> dict[str, Any]:
    """Details of this split for the dataset's card."""
    manifests = {role: artefact.published() for role, artefact in inputs.items()}
    made = manifests.pop("images")
    settings = made.config["images"]
    return {
        "keywords": made.details["keywords"],
        "prompts": ", ".join(made.details["prompts"]),
        "resolution": [settings["resolution"]] * 2 if settings.get("fit", "crop") == "crop" else None,
        "generator": _generator(settings),
        "labelers": {name: manifest.config["labeler"]["kind"] for name, manifest in manifests.items()},
    } | made_again(made.details)


def _generator(settings: dict[str, Any]) -> str:
    if settings["kind"] != "diffusion":
        return str(settings["kind"])
    revision = f" (revision {settings['revision']})" if settings["revision"] else ""
    steps = f"{settings['num_inference_steps']} {'DDIM ' if settings['scheduler'] == 'ddim' else ''}steps"
    return f"diffusion: {settings['model']}{revision}, {steps}, guidance {settings['guidance_scale']:g}"


def _merge(
    key: str,
    parts: dict[str, Sample],
    scores: dict[str, Any],
    config: ShardsStage,
    modalities: dict[str, Modality],
    schema: Schema,
) -> Sample:
    """One sample of the merged dataset; its json describes each column and its source."""
    if lacking := [role for role in modalities if role not in parts]:
        raise InputError(
            f"datasets/{config.dataset}/{config.split}: columns disagree: {key} is not among {', '.join(lacking)}; "
            "rerun labels"
        )
    labels = {role: f"{modality.card.stored} {modality.card.meaning}" for role, modality in modalities.items()}
    record = uniform_record(json.loads(parts["images"]["json"]), labels, config.palette, scores, schema)
    merged: Sample = {"__key__": key, **_image(parts["images"]["png"], config.shards.image_format)}
    merged |= {modality.member: parts[role][modality.member] for role, modality in modalities.items()}
    return merged | {"json": canonical_json(record).encode()}


def _image(png: bytes, image_format: str) -> dict[str, bytes]:
    if image_format == "png":
        return {"png": png}
    buffer = io.BytesIO()
    open_image(png, ("PNG",)).save(buffer, format="JPEG", quality=95)
    return {"jpg": buffer.getvalue()}


def _drop_surplus(out: Artefact, plans: list[ShardPlan]) -> None:
    """Remove shards of an older configuration: the dataset's path has no fingerprint."""
    if out.manifest() is not None or not out.workspace.fs.exists(out.path):
        return
    keep = {name for plan in plans for name in (plan.name, plan.sidecar)}
    for path in out.workspace.fs.find(out.path):
        if path.rsplit("/", 1)[-1] not in keep:
            out.workspace.fs.rm_file(path)
