"""An experiment's results, per variant, modality, split and metric, read from complete artefacts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from dmp_core.evaluation.bootstrap import Interval, Resamples, difference, percentile_interval
from dmp_core.experiments.planning import PlannedVariant, known_modalities
from dmp_core.methods.registry import find_method
from dmp_core.scoring.protocol import ScoreTable
from dmp_core.scoring.registry import CEILING, CONSTANT, MEAN_MAP
from dmp_core.stages import Node
from dmp_core.store import Manifest, Sample, Workspace, read_artefact

COLUMNS = (
    "experiment", "variant", "method", "task", "split", "metric", "value", "ci_low", "ci_high", "images",
    "steps", "train_steps", "seconds", "train_seconds", "trainable_parameters", "fingerprint",
)  # fmt: skip
"""`method`: the row's name. `task`: the modality's name; the column keeps its older name. `steps`: of sampling.
`seconds`: of prediction, per image. `train_seconds`: of training since it was last resumed. `fingerprint`: of the
scores' artefact."""

DIFFERENCES = (
    "variant", "method", "task", "split", "metric", "difference", "ci_low", "ci_high", "verdict",
    "fingerprint", "reference_fingerprint",
)  # fmt: skip

RESAMPLES = 1000
"""Number of bootstrap samples for every interval of a difference."""

REFERENCES = {CEILING: "ceiling", MEAN_MAP: "mean_map", CONSTANT: "constant"}
"""Rows that belong to no variant: name in the scores → variant."""


def collect(experiment: str, planned: Sequence[PlannedVariant], workspace: Workspace) -> pd.DataFrame:
    """All existing scores, in the order of the variants; references once, from the first variant."""
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str, str]] = set()
    for variant in planned:
        for node, manifest in _scores(variant, workspace):
            own = find_method(variant.config.train.method).title
            found = json.loads(node.artefact(workspace).read_input("metrics.json"))
            for modality, split, row, entry in _entries(found):
                key = (REFERENCES.get(row, variant.name), modality, split)
                if row not in (own, *REFERENCES) or key in seen:
                    continue
                seen.add(key)
                about = {"experiment": experiment, "variant": key[0], "task": modality, "split": split}
                about["method"] = variant.title if row == own else row
                about |= _costs(variant, modality, split, workspace) if row == own else {}
                rows.extend({**about, **score} for score in _values(entry, manifest))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def with_earlier(fresh: pd.DataFrame, earlier: pd.DataFrame, planned: Sequence[PlannedVariant]) -> pd.DataFrame:
    """`fresh`, and rows of an earlier table whose artefacts are no longer in the workspace.

    Both tables come from `collect`, or both from `differences`. A row is kept as long as a variant needs exactly the
    artefact that it was read from: other settings, data or weights give another artefact.
    """
    wanted = {node.fingerprint for variant in planned for node in variant.nodes if node.stage == "evaluate"}
    place = ["variant", "task", "split"]
    there = set(fresh[place].itertuples(index=False, name=None))
    sources = [name for name in ("fingerprint", "reference_fingerprint") if name in fresh.columns]
    kept = earlier[earlier[sources].isin(wanted).all(axis=1)]
    kept = kept[[key not in there for key in kept[place].itertuples(index=False, name=None)]]
    if kept.empty or fresh.empty:
        return (fresh if kept.empty else kept).reset_index(drop=True)
    order = {name: number for number, name in enumerate([variant.name for variant in planned])}
    both = pd.concat([fresh, kept], ignore_index=True)
    return both.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def differences(planned: Sequence[PlannedVariant], reference: str, workspace: Workspace) -> pd.DataFrame:
    """Each variant's primary metric minus the reference's, with the 95 % interval over shared images.

    Columns DIFFERENCES. verdict: `better`, `worse`, or `even`
    if the interval contains 0; fingerprint, reference_fingerprint: of both scores' artefacts. Only variants that were
    scored on the reference's images.
    """
    tables = {variant.name: score_tables(variant, workspace) for variant in planned}
    rows = []
    for variant in planned:
        for place, (table, fingerprint) in tables[variant.name].items():
            other, of_other = tables.get(reference, {}).get(place, (None, ""))
            if variant.name == reference or other is None or (interval := versus(table, other)) is None:
                continue
            metric = table.modality.primary_metric
            better = metric.better(interval.value, 0.0)
            rows.append(
                {
                    "variant": variant.name,
                    "method": variant.title,
                    "task": table.modality.name,
                    "split": table.split,
                    "metric": metric.name,
                    "difference": interval.value,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "verdict": ("better" if better else "worse") if interval.excludes_zero() else "even",
                    "fingerprint": fingerprint,
                    "reference_fingerprint": of_other,
                }
            )
    return pd.DataFrame(rows, columns=list(DIFFERENCES))


def versus(table: ScoreTable, reference: ScoreTable) -> Interval | None:
    """The primary metric minus the reference's, over shared resamples.

    None if the two do not have the same images, or if none of these can be scored.
    """
    if list(reference.values["key"]) != list(table.values["key"]):
        return None
    metric = table.modality.primary_metric
    ours_minus_theirs = difference(table.statistic(metric), reference.statistic(metric))
    interval = percentile_interval(ours_minus_theirs, Resamples(len(table.values), RESAMPLES))
    return interval if interval.known else None


def finished_samples(node: Node | None, workspace: Workspace) -> Iterator[Sample]:
    """The samples of a node's artefact; none if it has not been made."""
    if node is not None and _finished(node, workspace):
        yield from read_artefact(node.artefact(workspace))


def _scores(variant: PlannedVariant, workspace: Workspace) -> Iterator[tuple[Node, Manifest]]:
    """The finished evaluations of a variant."""
    for node in variant.nodes:
        if node.stage == "evaluate" and (manifest := _finished(node, workspace)):
            yield node, manifest


def _finished(node: Node | None, workspace: Workspace) -> Manifest | None:
    return node.artefact(workspace).manifest() if node else None


def score_tables(variant: PlannedVariant, workspace: Workspace) -> dict[tuple[str, str], tuple[ScoreTable, str]]:
    """(modality, split) → the variant's scores, and the fingerprint of their artefact."""
    own = find_method(variant.config.train.method).title
    known = {modality.name: modality for modality in known_modalities([variant])}
    found: dict[tuple[str, str], tuple[ScoreTable, str]] = {}
    for node, manifest in _scores(variant, workspace):
        for path in sorted(node.artefact(workspace).local_path().glob("*.parquet")):
            table = ScoreTable.load(path, known.get(getattr(node.config, "task", "")))
            if table.row == own:
                found[table.modality.name, table.split] = table, manifest.fingerprint
    return found


def _entries(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for modality, splits in metrics.items():
        for split, rows in splits.items():
            for row, entry in rows.items():
                yield modality, split, row, entry


def _values(entry: Mapping[str, Any], manifest: Manifest) -> Iterator[dict[str, Any]]:
    for metric, score in entry["metrics"].items():
        yield {
            "metric": metric,
            "value": score["mean"],
            "ci_low": score["low"],
            "ci_high": score["high"],
            "images": entry["images"],
            "fingerprint": manifest.fingerprint,
        }


def _costs(variant: PlannedVariant, modality: str, split: str, workspace: Workspace) -> dict[str, Any]:
    """Costs of training and running the variant, as far as the manifests contain them."""
    train = _finished(variant.find(f"train/{modality}-{variant.config.train.fitted.method}"), workspace)
    predict = _finished(variant.prediction(split, modality), workspace)
    return {
        "steps": getattr(variant.config.train.inference, "num_steps", variant.config.sampling.num_steps),
        "train_steps": train.details.get("steps") if train else None,
        "seconds": predict.seconds / predict.samples if predict and predict.samples else None,
        "train_seconds": train.seconds if train else None,
        "trainable_parameters": train.details.get("trainable_parameters") if train else None,
    }
