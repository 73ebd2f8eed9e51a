"""The paper's metrics and their corrected forms: (pred, true) -> one value per image, (B,).

Values of an image without any valid pixel are NaN: exclude them from means (``torch.nanmean``). A pixel that
is labelled and whose prediction is NaN or infinite counts as the worst possible, see docs/metrics.md.
Functions named ``dmp_compat`` reproduce the published code's results, for comparison with
the paper's tables only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from dmp_core.errors import InputError

# An 8-bit code cannot hold a zero vector exactly; true normals are far longer than this.
_NO_SURFACE = 0.5

DEEPEST = 65504.0
"""Metres: the largest depth of a depth map (float16). A pixel without a prediction counts as this."""


# ------------------------------------------------------------------------------- any image
def l1(pred: Tensor, true: Tensor) -> Tensor:
    """Mean absolute difference. (B, C, H, W), any range -> (B,). Where nothing is predicted, the difference is 1."""
    pred, true = _floats(pred, true)
    return _mean((pred - true).abs().where(_finite(pred), 1.0), _finite(true))


def mse(pred: Tensor, true: Tensor) -> Tensor:
    """Mean squared difference. (B, C, H, W), any range -> (B,). Where nothing is predicted, the difference is 1."""
    pred, true = _floats(pred, true)
    return _mean(((pred - true) ** 2).where(_finite(pred), 1.0), _finite(true))


def si_mse(pred: Tensor, true: Tensor) -> Tensor:
    """:func:`mse` after the best single scale of each prediction, over pixels that are predicted and labelled."""
    pred, true = _floats(pred, true)
    known = _finite(pred) & _finite(true)
    shown, truth = pred.where(known, 0.0), true.where(known, 0.0)
    energy = (shown * shown).flatten(1).sum(1).clamp(min=1e-12)
    scale = (shown * truth).flatten(1).sum(1) / energy
    return mse(pred * scale.view(-1, *[1] * (pred.ndim - 1)), true)


# --------------------------------------------------------------------------------- normals
def angular_deg(pred: Tensor, true: Tensor) -> Tensor:
    """Mean angle between normals, degrees in [0, 180]. (B, 3, H, W) in [-1, 1] -> (B,).

    Predictions of any length are scored by their direction; one without a direction counts 90°.
    Pixels where ``true`` is not a unit vector (shorter than 0.5) have no label and do not count.
    """
    return masked_mean(angles_deg(pred, true), has_normal(true))


def angles_deg(pred: Tensor, true: Tensor) -> Tensor:
    """The angle at each pixel, as in :func:`angular_deg`. (B, 3, H, W) -> (B, H, W)."""
    pred, true = _normals(pred, true)
    # atan2 keeps its digits near 0° and 180°, where arccos loses half of them.
    cross = torch.linalg.cross(pred, true, dim=1)
    angle = torch.atan2(_length(*cross.unbind(1)), (pred * true).sum(1)).rad2deg()
    angle = angle.masked_fill(_length(*pred.unbind(1)) <= 1e-6, 90.0)
    return angle.where(_finite(angle) & _finite(pred).all(1), 180.0)


def has_normal(true: Tensor) -> Tensor:
    """Where a label is a normal: finite, and no shorter than 0.5. (B, 3, H, W) -> bool (B, H, W)."""
    length = _length(*true.unbind(1))
    return _finite(length) & (length > _NO_SURFACE)


def l1_normals(pred: Tensor, true: Tensor) -> Tensor:
    """The paper's "L1": of the codes (n + 1) / 2, over the pixels that have a normal. (B, 3, H, W) in [-1, 1] -> (B,).

    Where nothing is predicted, the difference is 1.
    """
    pred, true = _normals(pred, true)
    difference = ((pred + 1) / 2 - (true + 1) / 2).abs().mean(1)
    return masked_mean(difference.where(_finite(pred).all(1), 1.0), has_normal(true))


def angular_dmp_compat(pred: Tensor, true: Tensor) -> Tensor:
    """The paper's "Ang": angle between *colour codes*, radians. (B, 3, H, W) in [0, 1] -> (B,).

    The codes are those of the published axes: x right, y *down*, z *away*. On other axes the same errors read
    otherwise, on right/up/toward 12 to 22 % lower. They are not re-centred to [-1, 1] and negative cosines count as
    90°, so a true 30° reads about 15°. Use :func:`angular_deg` for everything except a comparison with the paper.
    Pixels without a surface count as published, except those where nothing is predicted.
    """
    pred, true = _normals(pred, true)
    angle = _cosine(pred, true).clamp(0, 1).arccos()
    predicted = angle.isfinite() & pred.isfinite().all(1)
    labelled = has_normal(2 * true - 1)
    counted = true.isfinite().all(1) & (predicted | labelled)
    return _mean(angle.where(predicted, math.pi / 2), counted)


# ----------------------------------------------------------------------------------- depth
def has_depth(true: Tensor) -> Tensor:
    """Where a depth label is usable: finite and positive. Any shape -> bool of that shape."""
    return _finite(true) & (true > 0)


def abs_rel(pred: Tensor, true: Tensor, valid: Tensor | None = None) -> Tensor:
    """REL: mean of |y - ŷ| / y. Depth (B, H, W), metres -> (B,).

    valid: pixels that count, default :func:`has_depth` (the published code counts all). Where nothing is predicted,
    ŷ is :data:`DEEPEST`.
    """
    pred, true = _floats(pred, true)
    pred = pred.where(_finite(pred), DEEPEST)
    return masked_mean((pred - true).abs() / true, has_depth(true) if valid is None else valid)


def delta1(pred: Tensor, true: Tensor, valid: Tensor | None = None, power: int = 1) -> Tensor:
    """δ: share of pixels with max(y/ŷ, ŷ/y) < 1.25^power, in [0, 1]. Depth (B, H, W), metres -> (B,).

    A prediction that is not positive, or is missing, is wrong. valid: as in :func:`abs_rel`.
    """
    pred, true = _floats(pred, true)
    close = _finite(pred) & (pred > 0) & (torch.maximum(pred / true, true / pred) < 1.25**power)
    return masked_mean(close.to(pred.dtype), has_depth(true) if valid is None else valid)


def rmse_relative(pred: Tensor, true: Tensor, valid: Tensor | None = None) -> Tensor:
    """RMSE of relative depth: both maps stretched to [0, 1], separately. (B, H, W) -> (B,).

    valid: as in :func:`abs_rel`; minimum and maximum are taken over these pixels. A constant map
    becomes 0 everywhere. Where nothing is predicted, the difference is 1.
    """
    pred, true = _floats(pred, true)
    valid = has_depth(true) if valid is None else valid
    difference = min_max(pred, valid & _finite(pred)) - min_max(true, valid)
    return masked_mean((difference**2).where(difference.isfinite() & _finite(pred), 1.0), valid).sqrt()


def rmse(pred: Tensor, true: Tensor, valid: Tensor | None = None) -> Tensor:
    """Root of the mean squared difference, in metres. Depth (B, H, W) -> (B,). valid, unpredicted: as in abs_rel."""
    pred, true = _floats(pred, true)
    pred = pred.where(_finite(pred), DEEPEST)
    return masked_mean((pred - true) ** 2, has_depth(true) if valid is None else valid).sqrt()


def min_max(image: Tensor, valid: Tensor | None = None) -> Tensor:
    """Each image stretched to [0, 1] over its valid pixels; 0 where it is constant. Any (B, …)."""
    shape = (len(image), *[1] * (image.ndim - 1))
    inside = torch.ones_like(image, dtype=torch.bool) if valid is None else valid
    low = image.masked_fill(~inside, torch.inf).flatten(1).amin(1).view(shape)
    high = image.masked_fill(~inside, -torch.inf).flatten(1).amax(1).view(shape)
    span = high - low
    # Tested as "== 0", so that a NaN stays one.
    return torch.where(span == 0, torch.zeros_like(image), (image - low) / span)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid pixels of each image, NaN where there are none. (B, …) -> (B,)."""
    # Not a product with the mask: values outside may be inf or NaN.
    total = values.where(valid, 0.0).flatten(1).sum(1)
    return total / valid.flatten(1).sum(1)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted pixels of each image; the plain mean if all count. (B, …) -> (B,)."""
    whole = counted.flatten(1).all(1)
    if bool(whole.all()):
        return values.flatten(1).mean(1)
    return torch.where(whole, values.flatten(1).mean(1), masked_mean(values, counted))


# ---------------------------------------------------------------------------- segmentation
class SegmentationScore(Metric):
    """IoU and accuracy of class maps over a whole set, from one confusion matrix.

    num_classes: ids 0 … num_classes - 1 are classes. ignore_index: labels with this id do not count.
    reduce_zero_label: label 0 means "no label" and label k class k - 1 (ADE20K's own files); labels only.

    A torchmetrics metric: its sums are reduced over processes by ``compute``.
    """

    confusion: Tensor
    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(
        self, num_classes: int, ignore_index: int = 255, reduce_zero_label: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise InputError(f"num_classes: {num_classes}; give at least 1")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.reduce_zero_label = reduce_zero_label
        # One row and column more, for predictions outside the classes: wrong, but a false positive of no class.
        size = num_classes + 1
        self.add_state("confusion", torch.zeros(size, size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pred: Tensor, true: Tensor) -> None:
        """Add class ids (B, H, W), of any type. Raises InputError on labels outside the classes."""
        _check_shapes(pred, true)
        pred, true = _class_ids(pred), _class_ids(true)
        if self.reduce_zero_label:
            true = torch.where((true == 0) | (true == self.ignore_index), self.ignore_index, true - 1)
        ignored = true == self.ignore_index
        unknown = true[~ignored & ((true < 0) | (true >= self.num_classes))]
        if unknown.numel():
            raise InputError(
                f"true: contains id {int(unknown[0])}; expected 0 … {self.num_classes - 1}, or {self.ignore_index} "
                "to ignore"
            )
        other = self.num_classes
        pred = torch.where((pred < 0) | (pred >= other), other, pred)
        kept_pred, kept_true = pred[~ignored], true[~ignored]
        self.confusion += multiclass_confusion_matrix(kept_pred, kept_true, other + 1, validate_args=False)

    def compute(self) -> dict[str, Tensor]:
        """iou and acc per class (num_classes,), mean_iou, mean_acc, overall_acc, all in [0, 1].

        NaN: IoU of a class neither labelled nor predicted, accuracy of one not labelled. Means are
        over the classes that have a value.
        """
        areas = self.areas()
        iou = areas["intersection"] / areas["union"]
        acc = areas["intersection"] / areas["labelled"]
        return {
            "iou": iou,
            "acc": acc,
            "mean_iou": iou.nanmean(),
            "mean_acc": acc.nanmean(),
            "overall_acc": areas["intersection"].sum() / areas["labelled"].sum(),
        }

    def areas(self) -> dict[str, Tensor]:
        """Pixels per class (num_classes,), float64: intersection, predicted, labelled, union."""
        confusion = self.confusion.double()
        intersection = confusion.diagonal()[:-1]
        predicted, labelled = confusion.sum(0)[:-1], confusion.sum(1)[:-1]
        return {
            "intersection": intersection,
            "predicted": predicted,
            "labelled": labelled,
            "union": predicted + labelled - intersection,
        }


# -------------------------------------------------------------------------------- resizing
def shrink_dmp_compat(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Float images (B, C, H, W) shrunk to (height, width) by area means, without rounding.

    The published evaluation resized labels to the predictions' size this way (OpenCV's INTER_AREA).
    Whole ratios only; raises InputError on others.
    """
    height, width = images.shape[-2:]
    if height % size[0] or width % size[1]:
        raise InputError(f"size: {height}×{width} does not shrink to {size[0]}×{size[1]} by whole numbers")
    return F.avg_pool2d(images, (height // size[0], width // size[1]))


def _finite(values: Tensor) -> Tensor:
    """As `torch.isfinite`, in a fraction of the time where all are: only then can a sum be finite."""
    if bool(values.sum().isfinite()):
        return torch.ones_like(values, dtype=torch.bool)
    return values.isfinite()


def _length(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Of vectors given by their components. Many times as fast as a norm over an axis that is not the last."""
    return (x * x + y * y + z * z).sqrt()


def _cosine(pred: Tensor, true: Tensor) -> Tensor:
    """As `torch.nn.functional.cosine_similarity` of (B, 3, H, W) over the channels."""
    (a, b, c), (x, y, z) = pred.unbind(1), true.unbind(1)
    one, other = (_length(*parts).clamp(min=1e-8) for parts in ((a, b, c), (x, y, z)))
    return (a / one) * (x / other) + (b / one) * (y / other) + (c / one) * (z / other)


def _class_ids(ids: Tensor) -> Tensor:
    """As integers; -1 for invalid values."""
    if not ids.is_floating_point():
        return ids.long()
    return ids.where(ids.isfinite() & (ids == ids.floor()) & (ids.abs() < 2**31), -1.0).long()


def _check_shapes(pred: Tensor, true: Tensor) -> None:
    if pred.shape != true.shape or pred.ndim < 2:
        raise InputError(f"pred is {tuple(pred.shape)}, true is {tuple(true.shape)}; expected one shape (B, …)")


def _floats(pred: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Both in single precision at least: half precision overflows in the sums."""
    _check_shapes(pred, true)
    for name, tensor in (("pred", pred), ("true", true)):
        if not tensor.is_floating_point():
            raise InputError(f"{name}: {tensor.dtype}; expected floats (divide 8-bit codes by 255)")
    dtype = torch.promote_types(torch.promote_types(pred.dtype, true.dtype), torch.float32)
    return pred.to(dtype), true.to(dtype)


def _normals(pred: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    if pred.ndim != 4 or pred.shape[1] != 3:
        raise InputError(f"normals: shape {tuple(pred.shape)}; expected (B, 3, H, W)")
    return _floats(pred, true)
