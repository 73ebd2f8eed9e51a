"""Modalities, the quantities predicted per pixel: one file per modality, and three kinds with the defaults.

Everything about a modality belongs here: its files, units, axes, geometry, images for the VAE, metrics, blind
predictors, quality scores, renderings and texts. Light to import: no torch.
"""

from dmp_core.modalities.base import CardText, Code, ErrorScale, Metric, Modality
from dmp_core.modalities.registry import (
    BUILT_IN,
    built_in,
    check_own,
    find_modality,
    modalities_of,
    modality_names,
    modality_of,
    with_built_in,
)

__all__ = [
    "BUILT_IN",
    "CardText",
    "Code",
    "ErrorScale",
    "Metric",
    "Modality",
    "built_in",
    "check_own",
    "find_modality",
    "modalities_of",
    "modality_names",
    "modality_of",
    "with_built_in",
]
