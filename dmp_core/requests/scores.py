"""Scores of an adapter: from the evaluations in its workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dmp_core.diffusion.model_card import Score
from dmp_core.errors import InputError
from dmp_core.modalities.registry import modality_of_stage
from dmp_core.requests.runs import finished
from dmp_core.scoring.registry import DMP
from dmp_core.stages.registry import kind_of
from dmp_core.store import Artefact, Manifest, Workspace


def adapter_scores(adapter: Artefact) -> list[Score]:
    """The primary metric per split of the newest evaluation of this adapter; empty if there is none."""
    place = adapter.workspace
    predicted = {
        manifest.fingerprint
        for manifest in finished(place, "predict")
        if manifest.inputs.get("adapter") == adapter.fingerprint
    }
    evaluations = [one for one in finished(place, "evaluate") if predicted & set(one.inputs.values())]
    return list(_of(evaluations[-1], place)) if evaluations else []


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
