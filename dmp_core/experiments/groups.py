"""Scores on parts of a split: they show which images cause a difference between methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmp_core.evaluation.bootstrap import Interval, Resamples, percentile_interval
from dmp_core.experiments.collect import RESAMPLES, finished_samples, score_tables, versus
from dmp_core.experiments.planning import PlannedVariant, known_modalities, shared_node
from dmp_core.experiments.settings import GroupSpec
from dmp_core.modalities import Modality
from dmp_core.report.tables import DASH
from dmp_core.store import Workspace, decode_member
from dmp_core.text import markdown as markdown_text


@dataclass(frozen=True)
class Group:
    """The primary metric of one modality on some of the images."""

    modality: Modality
    name: str
    images: int
    reference: Interval
    differences: Mapping[str, Interval]
    """Variant → its score minus the reference's, on the same images."""


def groups(spec: GroupSpec, shown: Sequence[PlannedVariant], reference: str, workspace: Workspace) -> list[Group]:
    """Every modality's groups, in the order of `spec.names`; none if the reference has no scores.

    Images whose metadata has another value, or no such field, belong to no group; empty groups are omitted.
    """
    scores = {variant.name: score_tables(variant, workspace) for variant in shown}
    members = _members(spec, shown, workspace)
    found = []
    for modality in known_modalities(shown):
        place = modality.name, spec.split
        tables = {name: known[place][0] for name, known in scores.items() if place in known}
        if reference not in tables:
            continue
        metric = modality.primary_metric
        for value, name in spec.names.items():
            parts = {variant: table.only(members[value]) for variant, table in tables.items()}
            own = parts.pop(reference)
            if own.values.empty:
                continue
            score = percentile_interval(own.statistic(metric), Resamples(len(own.values), RESAMPLES))
            against = {variant: versus(part, own) for variant, part in parts.items()}
            differences = {variant: interval for variant, interval in against.items() if interval}
            found.append(Group(modality, name, len(own.values), score, differences))
    return found


def _members(spec: GroupSpec, shown: Sequence[PlannedVariant], workspace: Workspace) -> Mapping[str, set[str]]:
    """Value of the field → keys of the split's images that have it."""
    members: dict[str, set[str]] = defaultdict(set)
    for sample in finished_samples(shared_node(shown, f"images/{spec.split}"), workspace):
        members[_text(spec.field, decode_member("json", sample["json"]))].add(sample["__key__"])
    return members


def _text(field: str, metadata: Any) -> str:
    """The value at `a.b` of nested metadata, in JSON's form; empty if there is none."""
    for part in field.split("."):
        metadata = metadata.get(part) if isinstance(metadata, Mapping) else None
    if isinstance(metadata, bool):
        return str(metadata).lower()
    return "" if metadata is None else str(metadata)


def markdown(spec: GroupSpec, found: Sequence[Group], reference: str, titles: Mapping[str, str]) -> str:
    """A row per modality and group: the reference's score, then every other variant's difference from it.

    titles: variant → its title, in the order of the columns.
    """
    others = [name for name in titles if name != reference and any(name in group.differences for group in found)]
    heads = ["", "metric", "images", titles[reference], *(f"{titles[name]}, minus it" for name in others)]
    lines = [f"**{spec.title}**", "", f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(others) + 2)]
    for group in found:
        metric = group.modality.primary_metric
        cells = [
            f"{markdown_text(group.modality.short)}, {group.name}",
            f"{metric.label} {metric.arrow}",
            str(group.images),
        ]
        cells += [_cell(group.reference, metric.decimals, "")]
        cells += [_cell(group.differences.get(name), metric.decimals, "+") for name in others]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval | None, decimals: int, sign: str) -> str:
    if interval is None or not interval.known:
        return DASH
    value, low, high = (format(v, f"{sign}.{decimals}f") for v in (interval.value, interval.low, interval.high))
    return f"{value}<br><sub>{low} to {high}</sub>"
