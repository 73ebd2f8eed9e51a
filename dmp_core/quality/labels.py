"""Is a label plausible at all? Scores of one label map, and of a labeler's answer to the mirrored image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import FLIP_GATES, Task
from dmp_core.evaluation.colours import IGNORED
from dmp_core.evaluation.layout import metric_tensor
from dmp_core.labelers.encoding import flip

# 8-bit codes put a unit vector's length off by 0.007 at most; what is further off is not a unit vector.
UNIT_TOLERANCE = 0.05
_NO_SURFACE = 0.5


def label_scores(task: Task, label: NDArray[Any]) -> dict[str, Any]:
    """Scores of one label, as in `dmp_core.labelers.encoding` but normals as they are stored, not made unit again.

    labelled: share of the pixels that have a label (normal, depth, segmentation).
    normal, (H, W, 3) in [-1, 1]: unit, the share of the labelled vectors whose length is 1 ± 0.05; normal_z, their
        mean z. Surfaces face the viewer, so a mean below 0 says that the axes are wrong.
    depth, (H, W) metres: near and far, the smallest and the largest labelled depth.
    segmentation, (H, W) ids: classes, how many there are; class_share, the largest one's share of the labelled pixels.
    albedo and shading, (H, W[, 3]) in [0, 1]: label_mean; label_std, over the pixels, of the channel that varies most;
        label_clipped, the share of values that are 0 or 1.

    What no labelled pixel can tell is None.
    """
    return _SCORES[task](label)


def flip_difference(task: Task, label: NDArray[Any], mirrored: NDArray[Any]) -> dict[str, Any]:
    """How far a labeler's answer to the mirrored image, mirrored back, is from its answer to the image.

    label, mirrored: its two answers, as in `dmp_core.labelers.encoding`. Returns value and unit: mean angle in degrees
    (normal), mean of |d' - d| / d (depth), share of equal pixels (segmentation), mean squared difference (albedo,
    shading). The value is None where nothing is labelled.
    """
    value = _difference(task, label, flip(task, mirrored))
    return {"value": round(value, 6) if np.isfinite(value) else None, "unit": FLIP_GATES[task].split("_", 2)[2]}


def _difference(task: Task, label: NDArray[Any], other: NDArray[Any]) -> float:
    from dmp_core.evaluation import metrics

    if task == "segmentation":
        labelled = label != IGNORED
        return float((label == other)[labelled].mean()) if labelled.any() else float("nan")
    compare = {"normal": metrics.angular_deg, "depth": metrics.abs_rel}.get(task, metrics.mse)
    return float(compare(metric_tensor(task, other[None]), metric_tensor(task, label[None])))


def _normal(vectors: NDArray[Any]) -> dict[str, Any]:
    length = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=-1)
    labelled = length >= _NO_SURFACE
    scores: dict[str, Any] = {"labelled": float(labelled.mean()), "unit": None, "normal_z": None}
    if labelled.any():
        scores["unit"] = float((np.abs(length[labelled] - 1) <= UNIT_TOLERANCE).mean())
        scores["normal_z"] = float((vectors[..., 2][labelled] / length[labelled]).mean())
    return scores


def _depth(metres: NDArray[Any]) -> dict[str, Any]:
    labelled = np.isfinite(metres) & (metres > 0)
    near, far = (float(metres[labelled].min()), float(metres[labelled].max())) if labelled.any() else (None, None)
    return {"labelled": float(labelled.mean()), "near": near, "far": far}


def _segmentation(ids: NDArray[Any]) -> dict[str, Any]:
    labelled = ids != IGNORED
    counts = np.unique(ids[labelled], return_counts=True)[1]
    share = float(counts.max() / counts.sum()) if len(counts) else None
    return {"labelled": float(labelled.mean()), "classes": len(counts), "class_share": share}


def _intrinsic(values: NDArray[Any]) -> dict[str, Any]:
    values = np.asarray(values, dtype=np.float64)
    return {
        "label_mean": float(values.mean()),
        "label_std": float(values.std(axis=(0, 1)).max()),
        "label_clipped": float(((values <= 0) | (values >= 1)).mean()),
    }


_SCORES = {
    "normal": _normal,
    "depth": _depth,
    "segmentation": _segmentation,
    "albedo": _intrinsic,
    "shading": _intrinsic,
}
