"""Scores of an adapter: from the evaluations in its workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dmp_core.diffusion.model_card import Score
from dmp_core.errors import InputError
from dmp_core.modalities.registry import modality_of_stage
from dmp_core.scoring.registry import DMP
from dmp_core.stages.registry import kind_of
from dmp_core.store import Artefact, Manifest, Workspace
from dmp_core.store.folders import names_in
from dmp_core.store.workspace import known_manifests


def adapter_scores(adapter: Artefact) -> list[Score]:
    """The primary metric per split of the newest evaluation of this adapter; empty if there is none."""
    place = adapter.workspace
    predicted = {
        manifest.fingerprint
        for manifest in _made(place, "predict")
        if manifest.inputs.get("adapter") == adapter.fingerprint
    }
    evaluations = [one for one in _made(place, "evaluate") if predicted & set(one.inputs.values())]
    newest = max(evaluations, key=lambda one: one.created, default=None)
    return [] if newest is None else list(_of(newest, place))


def _made(place: Workspace, stage: str) -> list[Manifest]:
    folder = kind_of(stage).place(place)
    return list(
        known_manifests(place, (f"{folder}/{name}/manifest.json" for name in names_in(place.fs, folder))).values()
    )


def _of(evaluation: Manifest, place: Workspace) -> Iterator[Score]:
    modality = modality_of_stage(evaluation.config)
    artefact = kind_of("evaluate").artefact(place, evaluation.name, evaluation.fingerprint)
    try:
        found: dict[str, Any] = json.loads(artefact.read_input("metrics.json"))[modality.name]
    except (InputError, ValueError, KeyError):  # scores are an addition to a card: a damaged file is `dmp verify`'s
        return
    for split, rows in found.items():
        value = rows.get(DMP, {}).get("metrics", {}).get(modality.primary_metric.name, {}).get("mean")
        if value is not None:
            yield Score(split, modality.primary_metric, float(value))
