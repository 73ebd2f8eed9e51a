"""Blind predictors: one value for all pixels, or one map for all images, fitted on the training labels.

A model that scores below them has learnt nothing from the image. The map also knows what rooms have in common: a floor
below, a ceiling above, a far wall in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.modalities import Modality, modality_of


class NothingLabelled(InputError):
    """No training label contains a valid value, so there is nothing to fit."""


def constant_prediction(modality: Modality | str, train_labels: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """The best single value for all pixels, see `Modality.constant`. Labels are read once, one at a time.

    Raises NothingLabelled when no label contains a valid value.
    """
    modality = modality_of(modality)
    value = modality.constant(np.asarray(label) for label in train_labels)
    if not np.all(np.isfinite(value)):
        raise NothingLabelled(f"{modality.name}: no valid training label to fit the constant predictor on")
    return value


def constant_like(modality: Modality | str, value: NDArray[np.float64], true: NDArray[Any]) -> NDArray[Any]:
    """The constant as predictions for labels (N, …), in their layout."""
    return modality_of(modality).constant_like(value, true)


def fit_blind(
    modality: Modality | str, train_labels: Iterable[NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """(`constant_prediction`, `mean_map`) of the same labels, which are read and decoded only once."""
    collected = _MeanMapOf(modality_of(modality))

    def seen() -> Iterator[NDArray[Any]]:
        for label in train_labels:
            collected.add(label)
            yield label

    return constant_prediction(modality, seen()), collected.result()


def mean_map(modality: Modality | str, train_labels: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """The best single label map: per pixel the mean of the training labels, or their most frequent class.

    Channels last, in the labels' units; vectors normalised. A pixel that is never labelled gets the mean of all.
    Labels are read once, one at a time; those of another size than the first are resized.
    Raises NothingLabelled when no label contains a valid value.
    """
    collected = _MeanMapOf(modality_of(modality))
    for label in train_labels:
        collected.add(label)
    return collected.result()


class _MeanMapOf:
    """Collects labels, resized to the first one's size."""

    def __init__(self, modality: Modality) -> None:
        self.modality, self.collect = modality, modality.mean_map()
        self.size: tuple[int, int] | None = None

    def add(self, label: NDArray[Any]) -> None:
        array = self.modality.image_channels_last(label)
        self.size = self.size or (array.shape[0], array.shape[1])
        self.collect(array if array.shape[:2] == self.size else self.modality.resize(array, self.size))

    def result(self) -> NDArray[Any]:
        """Raises NothingLabelled."""
        found = self.collect.result()
        if found is None:
            raise NothingLabelled(f"{self.modality.name}: no valid training label to fit the mean map on")
        return found


def map_like(modality: Modality | str, value: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    """The map as the prediction for one label, channels last, in its size."""
    return modality_of(modality).resize(value, (true.shape[0], true.shape[1]))
