"""Plausibility of labels: scores of one label map, and of a labeler's prediction for the mirrored image."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from dmp_core.modalities import Modality, modality_of
from dmp_core.modalities.colour import UNIT_TOLERANCE

__all__ = ["UNIT_TOLERANCE", "flip_difference", "label_scores"]


def label_scores(modality: Modality | str, label: NDArray[Any]) -> dict[str, Any]:
    """Scores of one stored label, see `Modality.quality`; None for scores that need labelled pixels and have none.

    labelled: share of the pixels that have a label.
    Vectors, (H, W, 3) in [-1, 1]: unit, the share of the labelled ones whose length is 1 ± 0.05; normal_z, their mean
        z. Surfaces face the viewer, so a mean below 0 shows that the axes are wrong.
    depth, (H, W) metres: near and far, the smallest and the largest labelled depth.
    Classes, (H, W) ids: classes, how many there are; class_share, the largest one's share of the labelled pixels.
    Other values, (H, W[, 3]), relative to their range: label_mean; label_std, over the pixels, of the channel that
        varies most; label_clipped, the share of values at either end.
    """
    return modality_of(modality).quality(label)


def flip_difference(modality: Modality | str, label: NDArray[Any], mirrored: NDArray[Any]) -> dict[str, Any]:
    """Difference between a labeler's prediction for an image and for its mirrored copy, mirrored back.

    Returns value and unit: mean angle in degrees (vectors), mean of |d' - d| / d (depth), share of equal pixels
    (classes), mean squared difference (other values). The value is None if nothing is labelled.
    """
    modality = modality_of(modality)
    value = modality.flip_difference(label, mirrored)
    return {"value": round(value, 6) if math.isfinite(value) else None, "unit": modality.flip_unit}
