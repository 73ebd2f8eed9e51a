"""What knows nothing of the image: one value for all pixels, or one map for all images, fitted on the training labels.

Whoever scores below them has learnt nothing from the picture. The map also knows what rooms have in common: a floor
below, a ceiling above, a far wall in the middle.
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
from dmp_core.evaluation.layout import image_channels_last, metric_tensor
from dmp_core.evaluation.registry import metrics_of
from dmp_core.labelers.encoding import resize


class NothingLabelled(InputError):
    """No training label holds a valid value, so there is nothing to fit."""


# As in `metrics.angular_deg`, which counts anything shorter as 90°.
_NO_DIRECTION = 1e-6


def constant_prediction(task: Task, train_labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """The best single value per task, fitted on the training labels: what knows nothing of the image.

    normal: mean direction, re-normalised (3,). depth: median of the valid metres. segmentation: most
    frequent class. albedo: mean colour (3,). shading: mean. Labels are read once and one at a time.
    Raises NothingLabelled when no label holds a valid value.
    """
    metrics_of(task)
    labels = (np.asarray(label) for label in train_labels)
    value = {"depth": _median_depth, "segmentation": _commonest_class}.get(task, _mean_colour)(task, labels)
    length = np.linalg.norm(value)
    if task == "normal":
        value = value / length if length > 0 else np.full(3, np.nan)
    if not np.all(np.isfinite(value)):
        raise NothingLabelled(f"{task}: no valid training label to fit the constant predictor on")
    return value


def _mean_colour(task: Task, labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.zeros(1 if task == "shading" else 3)
    pixels = 0
    for label in labels:
        values = metric_tensor(task, label[None])[0].numpy()
        known = np.isfinite(values).all(axis=0)
        total = total + np.where(known, values, 0).sum(axis=(1, 2))
        pixels += int(known.sum())
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


def mean_map(task: Task, train_labels: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """The best single label map: per pixel the mean of the training labels, or their most frequent class.

    Channels last, in the labels' units; normals unit again. Depth that no label has at a pixel is the mean of all.
    Labels are read once and one at a time; those of another size than the first are resized.
    Raises NothingLabelled when no label holds a valid value.
    """
    metrics_of(task)
    add = _CountedClasses() if task == "segmentation" else _SummedValues(task)
    size: tuple[int, int] | None = None
    for label in train_labels:
        array = image_channels_last(task, label)
        size = size or (array.shape[0], array.shape[1])
        add(array if array.shape[:2] == size else resize(task, array, size))
    found = add.result()
    if found is None:
        raise NothingLabelled(f"{task}: no valid training label to fit the mean map on")
    return found


class _SummedValues:
    """Per pixel, the sum of valid values and their number."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.total: NDArray[np.float64] = np.zeros(())
        self.number: NDArray[np.float64] = np.zeros(())

    def __call__(self, label: NDArray[Any]) -> None:
        values = label.astype(np.float64) / (255 if label.dtype == np.uint8 else 1)
        valid = np.isfinite(values) & (values > 0 if self.task == "depth" else True)
        self.total = self.total + np.where(valid, values, 0)
        self.number = self.number + valid

    def result(self) -> NDArray[Any] | None:
        if not self.number.any():
            return None
        everywhere = self.total.sum() / self.number.sum()
        mean = np.where(self.number > 0, self.total / np.maximum(self.number, 1), everywhere)
        return _directions(mean) if self.task == "normal" else mean


def _directions(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of mean normals (…, 3), however short: labels that disagree still have a mean direction; (0, 0, 0) has none."""
    length = np.linalg.norm(means, axis=-1, keepdims=True)
    return np.where(length > _NO_DIRECTION, means / np.maximum(length, _NO_DIRECTION), 0)


class _CountedClasses:
    """Per pixel, how often each class occurs: at 512 x 512 pixels 256 MiB, however many labels there are."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int32] = np.zeros((0, 0, 256), np.int32)

    def __call__(self, label: NDArray[Any]) -> None:
        if not self.counts.size:
            self.counts = np.zeros((*label.shape, 256), np.int32)
        rows, columns = np.indices(label.shape)
        self.counts[rows, columns, label] += 1

    def result(self) -> NDArray[Any] | None:
        counts = self.counts
        if not counts.size:
            return None
        counts[..., IGNORED] = 0
        if not counts.any():
            return None
        commonest = int(counts.sum(axis=(0, 1)).argmax())
        return np.where(counts.any(axis=-1), counts.argmax(axis=-1), commonest).astype(np.uint8)


def map_like(task: Task, value: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    """The map as the prediction for one label, channels last, in its size."""
    return resize(task, value, (true.shape[0], true.shape[1]))
