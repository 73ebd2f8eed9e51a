"""Two runs side by side: the settings that differ, and their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.modalities import Modality
from dmp_core.modalities.registry import modalities_of, modality_of_stage
from dmp_core.requests.runs import finished, run_config
from dmp_core.scoring.registry import CEILING, CONSTANT, MEAN_MAP
from dmp_core.stages.registry import kind_of
from dmp_core.store import Workspace
from dmp_core.store.workspace import read_manifest

_ABSENT = "—"


@dataclass(frozen=True)
class Run:
    """A run's settings and scores."""

    config: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """As `dmp_core.scoring.protocol.aggregate` returns them; empty if none are stored."""
    modalities: Sequence[Modality] = ()


def read_run(path: str) -> Run:
    """The newest run of a workspace, an artefact's folder, or a configuration file. Raises InputError otherwise."""
    if Path(path).is_file():
        return Run(load_config(file=path).model_dump(mode="json", exclude={"runtime"}))
    place = Workspace(path)
    folder = place.root
    if place.fs.exists(f"{folder}/manifest.json"):
        manifest = read_manifest(place, f"{folder}/manifest.json")
    elif found := finished(place, "report"):
        manifest = found[-1]
        folder = kind_of("report").artefact(place, manifest.name, manifest.fingerprint).path
    else:
        raise InputError(
            f"{path}: no finished run here; give a workspace with a report, an artefact's folder, or a YAML file"
        )
    scores = _scores(place, f"{folder}/metrics.json")
    if manifest.stage == "report":
        config = run_config(manifest)
        return Run(config, scores.get("metrics", {}), modalities_of(config))
    known = [modality_of_stage(manifest.config)] if manifest.stage == "evaluate" else []
    return Run(manifest.config, scores if known else {}, known)


def _scores(place: Workspace, file: str) -> dict[str, Any]:
    try:
        found = json.loads(place.fs.cat_file(file))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{file}: damaged; `dmp verify` finds such files, and --repair lets a run make them again")
    return found


def changed_settings(left: Run, right: Run) -> dict[str, tuple[Any, Any]]:
    """Field → its value in both; a field that one of them lacks is `—` there."""
    unstated = {"editor"} - (left.config.keys() & right.config.keys())  # reports do not state it
    both = [
        dict(_leaves({name: value for name, value in run.config.items() if name not in unstated}))
        for run in (left, right)
    ]
    names = sorted(both[0].keys() | both[1].keys())
    pairs = {name: (both[0].get(name, _ABSENT), both[1].get(name, _ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _leaves(config: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


@dataclass(frozen=True)
class ScorePair:
    """One modality's primary metric on one split, in both runs; None where a run does not have it."""

    modality: str
    split: str
    row: str
    metric: str
    left: float | None
    right: float | None


def score_pairs(left: Run, right: Run) -> list[ScorePair]:
    """The scores of predictions, without baselines and the VAE's ceiling, of all that either run has scored."""
    known = {one.name: one for run in (right, left) for one in run.modalities}
    pairs = []
    for name in dict.fromkeys([*left.metrics, *right.metrics]):
        metric = known[name].primary_metric
        for split in dict.fromkeys(split for run in (left, right) for split in run.metrics.get(name, {})):
            rows = [run.metrics.get(name, {}).get(split, {}) for run in (left, right)]
            for row in dict.fromkeys([*rows[0], *rows[1]]):
                if row not in (CONSTANT, MEAN_MAP, CEILING):
                    values = [one.get(row, {}).get("metrics", {}).get(metric.name, {}).get("mean") for one in rows]
                    pairs.append(ScorePair(name, split, row, metric.label, *values))
    return pairs
