"""The constant predictor: the same answer for every image, fitted on the training labels.

Whoever scores below it has learnt nothing from the picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import Task
from dmp_core.errors import InputError
from dmp_core.evaluation.colours import IGNORED
from dmp_core.evaluation.histogram import HalfHistogram
from dmp_core.evaluation.layout import metric_tensor
from dmp_core.evaluation.registry import metrics_of


def constant_prediction(task: Task, train_labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """The best single value per task, fitted on the training labels: what knows nothing of the image.

    normal: mean direction, re-normalised (3,). depth: median of the valid metres. segmentation: most
    frequent class. albedo: mean colour (3,). shading: mean. Labels are read once and one at a time.
    Raises InputError when no label holds a valid value.
    """
    metrics_of(task)
    labels = (np.asarray(label) for label in train_labels)
    value = {"depth": _median_depth, "segmentation": _commonest_class}.get(task, _mean_colour)(task, labels)
    if task == "normal":
        value = value / np.linalg.norm(value)
    if not np.all(np.isfinite(value)):
        raise InputError(f"{task}: no valid training label to fit the constant predictor on")
    return value


def _mean_colour(task: Task, labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.zeros(1 if task == "shading" else 3)
    pixels = 0
    for label in labels:
        values = metric_tensor(task, label[None])[0].numpy()
        total = total + values.sum(axis=(1, 2))
        pixels += values.shape[1] * values.shape[2]
    mean = total / pixels if pixels else np.full_like(total, np.nan)
    return mean[0] if task == "shading" else mean


def _median_depth(task: Task, labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    histogram = HalfHistogram()
    for label in labels:
        histogram.update(label)
    return np.array(histogram.quantile(0.5))


def _commonest_class(task: Task, labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    counts: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
    for label in labels:
        counts += np.bincount(label[label != IGNORED].astype(np.int64), minlength=256)
    return np.array(float(np.argmax(counts)) if counts.any() else np.nan)


def constant_like(task: Task, value: NDArray[np.float64], true: NDArray[Any]) -> NDArray[Any]:
    """The constant as predictions for labels (N, …), in their layout."""
    true = np.asarray(true)
    if task in ("normal", "albedo") and true.shape[-1] != 3:
        value = np.reshape(value, (3, 1, 1))
    dtype = np.int64 if task == "segmentation" else np.float64
    return np.broadcast_to(np.asarray(value, dtype=dtype), true.shape)
