"""Is a label plausible at all? Scores of one label map, and of a labeler's answer to the mirrored image."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from dmp_core.modalities import Modality, modality_of
from dmp_core.modalities.colour import UNIT_TOLERANCE

__all__ = ["UNIT_TOLERANCE", "flip_difference", "label_scores"]


def label_scores(modality: Modality | str, label: NDArray[Any]) -> dict[str, Any]:
    """Scores of one label as it is stored, see `Modality.quality`; None for what no labelled pixel can tell.

    labelled: share of the pixels that have a label.
    Vectors, (H, W, 3) in [-1, 1]: unit, the share of the labelled ones whose length is 1 ± 0.05; normal_z, their mean
        z. Surfaces face the viewer, so a mean below 0 says that the axes are wrong.
    depth, (H, W) metres: near and far, the smallest and the largest labelled depth.
    Classes, (H, W) ids: classes, how many there are; class_share, the largest one's share of the labelled pixels.
    Other values, (H, W[, 3]), as parts of their range: label_mean; label_std, over the pixels, of the channel that
        varies most; label_clipped, the share of values at either end.
    """
    return modality_of(modality).quality(label)


def flip_difference(modality: Modality | str, label: NDArray[Any], mirrored: NDArray[Any]) -> dict[str, Any]:
    """How far a labeler's answer to the mirrored image, mirrored back, is from its answer to the image.

    Returns value and unit: mean angle in degrees (vectors), mean of |d' - d| / d (depth), share of equal pixels
    (classes), mean squared difference (other values). The value is None where nothing is labelled.
    """
    modality = modality_of(modality)
    value = modality.flip_difference(label, mirrored)
    return {"value": round(value, 6) if math.isfinite(value) else None, "unit": modality.flip_unit}
