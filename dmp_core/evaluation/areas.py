"""Segmentation scores from class areas.

Pixels right, predicted and labelled, per class: all that IoU and accuracy need, additive over
images, so a bootstrap over images costs one matrix product. A confusion matrix per image would take
50 times the memory. For one set as a whole this equals `metrics.SegmentationScore` (tested).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.evaluation.bootstrap import Statistic

INTERSECTION, PREDICTED, LABELLED = 0, 1, 2
"""Last axis of the areas (N, K, 3), in pixels."""


def class_areas(
    pred: NDArray[Any],
    true: NDArray[Any],
    num_classes: int,
    ignored: int,
    name: str,
) -> NDArray[np.int64]:
    """Per image and class: pixels right, predicted, labelled. ids (N, H, W) -> (N, num_classes, 3).

    Pixels labelled `ignored` count nowhere; a prediction outside the classes is wrong, but no class's false positive.
    Raises InputError, which starts with `name`, when a label contains an id outside the classes.
    """
    pred, true = _class_ids(pred), _class_ids(true)
    if true.size and (int(true[true != ignored].max(initial=0)) >= num_classes or int(true.min()) < 0):
        raise InputError(f"{name}: labels contain class ids outside 0…{num_classes - 1} and {ignored}")
    images = np.arange(len(true))[:, None, None] * num_classes
    labelled = true != ignored
    countable = labelled & (pred >= 0) & (pred < num_classes)

    def count(ids: NDArray[np.int64], where: NDArray[np.bool_]) -> NDArray[np.int64]:
        counts = np.bincount((ids + images)[where], minlength=len(true) * num_classes)
        return counts.reshape(len(true), num_classes)

    return np.stack([count(true, labelled & (pred == true)), count(pred, countable), count(true, labelled)], axis=-1)


def _class_ids(ids: NDArray[Any]) -> NDArray[np.int64]:
    """As integers; -1 for values that are none: NaN, infinite, between two ids."""
    if ids.dtype.kind != "f":
        return ids.astype(np.int64)
    whole = np.isfinite(ids) & (ids == np.floor(ids)) & (np.abs(ids) < 2**31)
    return np.where(whole, ids, -1).astype(np.int64)


def image_scores(areas: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The registry's per-image segmentation metrics, each (N,); NaN for images without labelled pixels."""
    iou, _ = _iou_and_accuracy(areas.astype(np.float64))
    present = areas[..., LABELLED] > 0
    right, labelled = areas[..., INTERSECTION].sum(1), areas[..., LABELLED].sum(1)
    return {"image_mean_iou": _mean_where(iou, present), "image_overall_acc": _divide(right, labelled)}


def _iou_and_accuracy(areas: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(…, K, 3) -> IoU and accuracy (…, K); NaN for classes that do not occur."""
    right, predicted, labelled = (areas[..., i] for i in (INTERSECTION, PREDICTED, LABELLED))
    return _divide(right, predicted + labelled - right), _divide(right, labelled)


def _divide(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def _mean_where(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the last axis of the selected entries; NaN when none is selected."""
    return _divide(np.where(where, values, 0.0).sum(-1), where.sum(-1))


def area_score(
    areas: NDArray[np.int64], name: str, single: Mapping[str, int], headline: Collection[int] | None = None
) -> Statistic:
    """One dataset-level metric of a class map as a function of resample weights; areas (N, K, 3).

    single: classes with their own metrics, `iou_NAME` and `acc_NAME`, and a common mean, `five_iou` and `five_acc`.
    headline: classes that `mean_iou` and `mean_acc` average; None: all.
    """
    used = np.flatnonzero(areas.any(axis=(0, 2)))
    flat = areas[:, used].reshape(len(areas), -1).astype(np.float64)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        summed = (weights @ flat).reshape(len(weights), len(used), 3)
        return _dataset_score(summed, used, name, single, headline)

    return statistic


def _dataset_score(
    areas: NDArray[np.float64],
    ids: NDArray[np.int64],
    name: str,
    single: Mapping[str, int],
    headline: Collection[int] | None,
) -> NDArray[np.float64]:
    """One metric from summed areas (S, K', 3) of the classes `ids` (K',): (S,)."""
    iou, accuracy = _iou_and_accuracy(areas)
    present = areas[..., LABELLED] > 0
    five = present & np.isin(ids, list(single.values()))
    counted = present if headline is None else present & np.isin(ids, list(headline))
    if name == "overall_acc":
        return _divide(areas[..., INTERSECTION].sum(-1), areas[..., LABELLED].sum(-1))
    whole = {
        "mean_iou": (iou, counted),
        "mean_acc": (accuracy, counted),
        "five_iou": (iou, five),
        "five_acc": (accuracy, five),
        "mean_iou_union": (iou, np.isfinite(iou)),
    }
    if name in whole:
        return _mean_where(*whole[name])
    kind, _, class_name = name.partition("_")
    column = np.flatnonzero(ids == single[class_name])
    if column.size == 0:
        return np.full(len(areas), np.nan)
    return (iou if kind == "iou" else accuracy)[:, column[0]]
