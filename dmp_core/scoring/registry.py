"""The metrics of modalities, by name: for the report's column heads and the documentation.

Light on purpose (no torch, no pandas), so that anything may read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from dmp_core.modalities import BUILT_IN, Metric, Modality, modality_of
from dmp_core.modalities.segmentation import PAPER_CLASSES

__all__ = [
    "CEILING",
    "CONSTANT",
    "DMP",
    "MEAN_MAP",
    "PAPER_CLASSES",
    "Metric",
    "describe",
    "metric",
]

CONSTANT = "constant"
MEAN_MAP = "mean map"
CEILING = "VAE ceiling"
DMP = "DMP"
"""Names of the report's rows: the best constant, the best single map, the label through the VAE, the predictor."""


def metric(modality: Modality | str, name: str) -> Metric:
    """Look up a metric; raises InputError naming the ones that exist."""
    return modality_of(modality).metric(name)


def describe(modalities: Iterable[Modality | str] = BUILT_IN) -> dict[str, list[dict[str, Any]]]:
    """The metrics as plain data, by modality, for `metrics.json` and the documentation."""
    return {one.name: [asdict(metric) for metric in one.metrics] for one in map(modality_of, modalities)}
