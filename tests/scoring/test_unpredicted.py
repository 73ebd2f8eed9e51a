"""A pixel that is labelled and not predicted counts as wrong; one that is not labelled never counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.errors import InputError
from dmp_core.evaluation import metrics
from dmp_core.evaluation.alignment import align_affine
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.scoring.constant import constant_prediction, mean_map
from dmp_core.scoring.protocol import aggregate, score
from tests.constant_rows import score_constant

N, H, W = 4, 8, 8
PIXELS = H * W
KEYS = list("abcd")
NOTHING = [np.nan, np.inf, -np.inf]


def labels(task: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if task == "normal":
        vectors = rng.normal(size=(N, H, W, 3))
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    if task == "depth":
        return rng.uniform(1, 5, (N, H, W))
    if task == "segmentation":
        return rng.integers(0, 5, (N, H, W)).astype(np.float64)
    return rng.random((N, H, W, 3) if task == "albedo" else (N, H, W))


def unlabel(task: str, true: np.ndarray) -> np.ndarray:
    """The same without a label at the last pixel of each image."""
    true = true.copy()
    true[:, -1, -1] = {"normal": 0, "depth": 0, "segmentation": 255}.get(task, np.nan)
    return true


def spoil(pred: np.ndarray, nothing: float, row: int, column: int) -> np.ndarray:
    pred = pred.copy()
    pred[:, row, column] = nothing
    return pred


# ----------------------------------------------------------------------------- score of such a pixel
# By hand, for a prediction that is right except at one pixel of each image.
EXPECTED = {
    "normal": {"angular_deg": 180 / PIXELS, "l1": 1 / PIXELS, "angular_dmp_compat": math.pi / 2 / PIXELS},
    "depth": {"delta1": 1 - 1 / PIXELS, "delta1_aligned": 1 - 1 / PIXELS, "rmse_relative": math.sqrt(1 / PIXELS)},
    "albedo": {"mse": 1 / PIXELS, "l1": 1 / PIXELS, "si_mse": 1 / PIXELS},
    "shading": {"mse": 1 / PIXELS, "l1": 1 / PIXELS, "si_mse": 1 / PIXELS},
    "segmentation": {"overall_acc": 1 - 1 / PIXELS, "image_overall_acc": 1 - 1 / PIXELS},
}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("task", BUILT_IN)
def test_one_pixel_without_a_prediction_is_one_pixel_wrong(task: str, nothing: float) -> None:
    true = labels(task)
    true[:, 2, 2] = true[:, 3, 3]  # no minimum and no maximum is lost
    found = score(task, spoil(true, nothing, 2, 2), true, KEYS).dataset
    for name, value in EXPECTED[task].items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert not any(np.isnan(found[metric.name]) for metric in find_modality(task).metrics if "_" not in metric.name)


@pytest.mark.parametrize("name", ["abs_rel", "abs_rel_aligned"])
def test_depth_that_is_not_predicted_is_the_largest_depth(name: str) -> None:
    true = labels("depth")
    found = score("depth", spoil(true, np.nan, 0, 0), true, KEYS).values[name]
    assert found.to_numpy() == pytest.approx((float(np.finfo(np.float16).max) - true[:, 0, 0]) / true[:, 0, 0] / PIXELS)


def test_a_direction_with_a_missing_component_is_none() -> None:
    true = labels("normal")
    pred = true.copy()
    pred[:, 0, 0, 1] = np.nan
    found = score("normal", pred, true, KEYS).dataset
    assert found["angular_deg"] == pytest.approx(180 / PIXELS)
    assert found["l1"] == pytest.approx(1 / PIXELS)


def test_the_median_angle_of_a_map_that_is_mostly_empty_is_the_worst() -> None:
    true = labels("normal")
    pred = true.copy()
    pred[:, :5] = np.inf
    assert score("normal", pred, true, KEYS).dataset["angular_median_deg"] == 180


@pytest.mark.parametrize("task", BUILT_IN)
def test_a_map_without_any_prediction_has_the_worst_scores(task: str) -> None:
    true = labels(task)
    found = score(task, np.full_like(true, np.nan), true, KEYS).dataset
    worst = {"angular_deg": 180, "angular_median_deg": 180, "angular_dmp_compat": math.pi / 2, "abs_rel": 1e4,
             "abs_rel_aligned": 1e4}  # fmt: skip
    for metric in find_modality(task).metrics:
        if metric.higher_is_better:
            assert np.isnan(found[metric.name]) or found[metric.name] == 0, metric.name
        else:
            assert found[metric.name] >= worst.get(metric.name, 1) - 1e-9, metric.name


@given(st.sampled_from(BUILT_IN), st.integers(0, 2**31), st.sampled_from(NOTHING), st.integers(1, PIXELS))
def test_no_score_gains_by_leaving_pixels_out(task: str, seed: int, nothing: float, count: int) -> None:
    """Whichever are missing. (A wrong class is wrong twice, for its label's class and for its own; no class, once.)"""
    rng = np.random.default_rng(seed)
    true = labels(task, seed)
    pred = labels(task, seed + 1) if task == "normal" else true * (1 if task == "segmentation" else rng.uniform(0.7, 1))
    holed = pred.copy()
    holed.reshape(N, PIXELS, -1)[:, rng.permutation(PIXELS)[:count]] = nothing
    whole, part = score(task, pred, true, KEYS).dataset, score(task, holed, true, KEYS).dataset
    for metric in find_modality(task).metrics:
        if not np.isnan(whole[metric.name]):
            assert not metric.better(
                part[metric.name], whole[metric.name] + (1e-9 if metric.higher_is_better else -1e-9)
            )
            assert not np.isnan(part[metric.name]), metric.name


def test_an_image_with_an_invalid_pixel_stays_in_the_mean() -> None:
    """It used to be dropped, so that a prediction three times too deep looked good."""
    true = labels("depth")
    pred = true * 1.1
    pred[1] *= 3
    wrong = score("depth", pred, true, KEYS)
    pred[0, 0, 0], pred[1, 0, 0] = np.nan, np.inf
    spoilt = score("depth", pred, true, KEYS)
    constant = score_constant("depth", np.array(3.0), true, KEYS)
    result = aggregate([spoilt, constant], samples=50)["depth"][""]["DMP"]
    assert result["metrics"]["abs_rel"]["mean"] > wrong.dataset["abs_rel"] > 0.6
    assert result["beats_constant"] is False


# ------------------------------------------------------------------------- pixels without a label
@pytest.mark.parametrize("nothing", [*NOTHING, 1e300])
@pytest.mark.parametrize("task", BUILT_IN)
def test_a_prediction_where_no_label_is_changes_nothing(task: str, nothing: float) -> None:
    true, pred = unlabel(task, labels(task)), labels(task, 1)
    if task != "segmentation":
        pred = 0.8 * pred
    found = score(task, spoil(pred, nothing, -1, -1), true, KEYS).values
    expected = score(task, pred, true, KEYS).values
    if task == "normal":  # the published form counts such a pixel where there is a prediction, as always
        found, expected = (table.drop(columns="angular_dmp_compat") for table in (found, expected))
    for name in expected.columns[1:]:
        assert found[name].to_numpy() == pytest.approx(expected[name].to_numpy()), name


def test_the_published_angle_ignores_pixels_neither_labelled_nor_predicted() -> None:
    true, pred = unlabel("normal", labels("normal")), labels("normal", 1)
    codes = [torch.from_numpy((spoil(pred, np.nan, -1, -1) + 1) / 2), torch.from_numpy((true + 1) / 2)]
    rest = [code.reshape(N, PIXELS, 1, 3)[:, :-1].movedim(-1, 1) for code in codes]
    whole = [code.movedim(-1, 1) for code in codes]
    torch.testing.assert_close(metrics.angular_dmp_compat(*whole), metrics.angular_dmp_compat(*rest))


def test_alignment_uses_only_pixels_where_both_are_known() -> None:
    true = torch.from_numpy(labels("depth"))
    pred = 2 * true + 1
    pred[:, 0, 0], true[:, 0, 1], pred[:, 0, 1] = torch.nan, 0, torch.inf
    aligned = align_affine(pred, true)
    known = pred.isfinite()
    assert aligned.isfinite().equal(known)
    torch.testing.assert_close(aligned[known], true[known])


@pytest.mark.parametrize("task", ["normal", "depth", "albedo", "shading"])
def test_labels_that_are_not_finite_do_not_count_in_constants_and_mean_maps(task: str) -> None:
    true = labels(task)
    holed = true.copy()
    holed[0, 0, 0] = np.nan
    holed[1, 0, 1] = np.inf
    assert constant_prediction(task, iter(holed)) == pytest.approx(constant_prediction(task, iter(true)), abs=0.2)
    found = mean_map(task, iter(holed))
    assert np.isfinite(found).all()
    assert found[1:] == pytest.approx(mean_map(task, iter(true))[1:])


# --------------------------------------------------------------------------------- class ids
@pytest.mark.parametrize("no_class", [-1, 150, 255, 7.5, np.nan, np.inf, -np.inf, 1e30, 2.0**63])
def test_a_prediction_outside_the_classes_is_wrong_and_no_false_positive(no_class: float) -> None:
    true = np.array([[[7, 7, 0, 255]]])
    pred = np.array([[[7, no_class, 0, no_class]]])
    right, predicted, labelled = find_modality("segmentation").areas(pred, true)[0].T
    assert (right[7], predicted[7], labelled[7]) == (1, 1, 2)
    assert predicted.sum() == 2
    reference = metrics.SegmentationScore(num_classes=150)
    reference.update(torch.from_numpy(pred), torch.from_numpy(true))
    assert float(reference.compute()["overall_acc"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("label", [np.nan, np.inf, 7.5, -1.0])
def test_labels_outside_the_classes_are_refused(label: float) -> None:
    with pytest.raises(InputError, match=r"outside 0…149"):
        find_modality("segmentation").areas(np.zeros((1, 2, 2)), np.full((1, 2, 2), label))
    with pytest.raises(InputError, match=r"expected 0 … 149"):
        metrics.SegmentationScore(num_classes=150).update(torch.zeros(1, 2, 2), torch.full((1, 2, 2), label))


# ------------------------------------------------------------------------------------- means
def test_an_infinite_error_counts_in_the_mean() -> None:
    true, pred = labels("albedo"), labels("albedo", 1)
    pred[2, 0, 0] = 1e200  # finite, but not its square
    table = score("albedo", pred, true, KEYS)
    assert table.dataset["mse"] == math.inf
    assert aggregate([table], samples=20)["albedo"][""]["DMP"]["metrics"]["mse"] == {
        "mean": None,
        "low": None,
        "high": None,
    }
