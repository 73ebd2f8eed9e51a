"""Costs of fitting and running each variant, with its number of samples: comparisons should have similar costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dmp_core.experiments.planning import PlannedVariant


def markdown(title: str, shown: Sequence[PlannedVariant], scores: pd.DataFrame) -> str:
    """A row per variant with scores: samples drawn, minutes to fit a modality, weights fitted, time per image.

    scores: of `collect`. Times are medians over modalities and splits, on the machine that measured them; interrupted
    fits count from where they were resumed.
    """
    lines = [f"**{title}**", ""]
    lines += [
        "| | samples drawn | minutes to fit | weights fitted | steps | ms an image |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for variant in shown:
        own = scores[scores["variant"] == variant.name]
        if own.empty:
            continue
        median = own[["train_seconds", "trainable_parameters", "steps", "seconds"]].astype(float).median()
        cells = [
            f"{variant.config.train.draws:,}",
            _number(median["train_seconds"] / 60, ".1f"),
            _number(median["trainable_parameters"], ",.0f"),
            _number(median["steps"], ".0f"),
            _number(median["seconds"] * 1000, ".0f"),
        ]
        lines.append(f"| {variant.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
