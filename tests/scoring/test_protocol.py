"""Scores compared with values from geometry or from counting by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.errors import InputError
from dmp_core.evaluation.histogram import HalfHistogram
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.modalities.settings import ClassesModality
from dmp_core.scoring.constant import NothingLabelled
from dmp_core.scoring.protocol import (
    Scorer,
    ScoreTable,
    aggregate,
    constant_like,
    constant_prediction,
    map_like,
    mean_map,
    pick_cases,
    score,
)
from dmp_core.scoring.registry import describe, metric
from tests.constant_rows import score_constant

N, H, W = 5, 12, 10
KEYS = [f"test-{i:08d}" for i in range(N)]


def labels(task: str, seed: int = 0, count: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if task == "normal":
        vectors = rng.normal(size=(count, H, W, 3))
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    if task == "segmentation":
        return rng.choice([0, 3, 7, 57, 36, 8, 22], size=(count, H, W)).astype(np.uint8)
    shape = (count, H, W, 3) if task == "albedo" else (count, H, W)
    return rng.uniform(0.5, 6, shape) if task == "depth" else rng.uniform(0.1, 0.9, shape)


def rotated(normals: np.ndarray, degrees: float, seed: int = 1) -> np.ndarray:
    """Every vector rotated by the same angle about an axis at right angles to it (Rodrigues)."""
    helper = np.random.default_rng(seed).normal(size=normals.shape)
    axis = np.cross(normals, helper)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.radians(degrees)
    return normals * np.cos(angle) + np.cross(axis, normals) * np.sin(angle)


# ------------------------------------------------------------------------------------- metrics
@pytest.mark.parametrize("task", BUILT_IN)
def test_a_perfect_prediction_gets_the_best_possible_score(task: str) -> None:
    true = labels(task)
    table = score(task, true, true, KEYS)
    assert list(table.values["key"]) == KEYS
    # The published angle rounds to a small positive number (arccos at 1); all others are exact.
    for name, value in table.dataset.items():
        best = 1.0 if metric(task, name).higher_is_better else 0.0
        assert value == pytest.approx(best, abs=1e-3 if name.startswith("angular") else 1e-9), name


@pytest.mark.parametrize("degrees", [3.0, 17.0, 95.0, 180.0])
def test_turned_normals_are_off_by_the_angle_they_were_turned(degrees: float) -> None:
    true = labels("normal")
    table = score("normal", rotated(true, degrees), true, KEYS)
    assert table.values["angular_deg"].to_numpy() == pytest.approx(np.full(N, degrees), abs=1e-3)
    assert table.values["angular_median_deg"].to_numpy() == pytest.approx(np.full(N, degrees), abs=1e-3)


def test_a_prediction_without_a_direction_counts_as_a_right_angle() -> None:
    true = labels("normal")
    values = score("normal", np.zeros_like(true), true, KEYS).values
    assert values["angular_deg"].tolist() == values["angular_median_deg"].tolist() == [90.0] * N


def test_the_published_angle_differs_from_the_correct_one() -> None:
    """A true 30° near the viewing axis is much less on colour codes."""
    true = np.tile([0.0, 0.0, 1.0], (1, H, W, 1))
    turned = np.tile([np.sin(np.pi / 6), 0.0, np.cos(np.pi / 6)], (1, H, W, 1))
    values = score("normal", turned, true, ["a"]).values.iloc[0]
    codes = (np.array([turned[0, 0, 0], true[0, 0, 0]]) + 1) / 2
    away = (np.array([[np.sin(np.pi / 6), 0.0, -np.cos(np.pi / 6)], [0.0, 0.0, -1.0]]) + 1) / 2
    expected = np.arccos(away[0] @ away[1] / np.linalg.norm(away[0]) / np.linalg.norm(away[1]))
    assert values["angular_deg"] == pytest.approx(30, abs=1e-3)
    assert values["angular_dmp_compat"] == pytest.approx(expected, abs=1e-4)
    assert values["l1"] == pytest.approx(np.abs(codes[0] - codes[1]).mean(), abs=1e-6)


def published_codes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """8-bit label images of a room and of a prediction 14.4° off, on the published axes: right, down, away."""
    floor, ceiling, back, left, right = (0, -1, 0), (0, 1, 0), (0, 0, -1), (1, 0, 0), (-1, 0, 0)
    surfaces = np.array([floor, ceiling, back, left, right], float)
    true = surfaces[rng.choice(5, size=(N, 32, 32), p=[0.25, 0.1, 0.35, 0.15, 0.15])]
    aside = np.cross(true, rng.normal(size=true.shape))
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    pred = np.cos(np.radians(14.4)) * true + np.sin(np.radians(14.4)) * aside
    return tuple(((one + 1) / 2 * 255).round().astype(np.uint8) for one in (pred, true))


def published_angle(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The published formula on 8-bit codes (N, H, W, 3), written again from its description: radians per image."""
    p, t = pred / 255, true / 255
    cosine = (p * t).sum(-1) / (np.linalg.norm(p, axis=-1) * np.linalg.norm(t, axis=-1))
    return np.arccos(cosine.clip(0, 1)).mean(axis=(1, 2))


def test_the_published_angle_is_that_of_the_published_images() -> None:
    """Normals in our axes score as the published evaluation scores the same normals in its own axes."""
    images = published_codes(np.random.default_rng(5))
    ours = [(codes / 255 * 2 - 1) * [1, -1, -1] for codes in images]
    values = score("normal", *ours, KEYS).values
    assert values["angular_deg"].mean() == pytest.approx(14.4, abs=0.1)
    assert values["angular_dmp_compat"].to_numpy() == pytest.approx(published_angle(*images), abs=1e-4)
    # On our own axes the same errors look smaller.
    flattered = published_angle(*(((one + 1) / 2 * 255).round() for one in ours))
    assert (flattered < 0.95 * values["angular_dmp_compat"]).all()


def test_the_published_angle_of_channels_first_is_the_same() -> None:
    images = published_codes(np.random.default_rng(6))
    ours = [(codes / 255 * 2 - 1) * [1, -1, -1] for codes in images]
    first = [np.moveaxis(one, -1, 1) for one in ours]
    pd.testing.assert_frame_equal(score("normal", *first, KEYS).values, score("normal", *ours, KEYS).values)


def test_pixels_without_a_surface_do_not_count() -> None:
    true = labels("normal")
    pred = rotated(true, 20)
    true[:, :3] = 0
    assert score("normal", pred, true, KEYS).dataset["angular_deg"] == pytest.approx(20, abs=1e-3)


def test_depth_off_by_a_factor() -> None:
    true = labels("depth")
    ten, forty = (score("depth", factor * true, true, KEYS).dataset for factor in (1.1, 1.4))
    assert ten["abs_rel"] == pytest.approx(0.1)
    assert (ten["delta1"], forty["delta1"]) == (1.0, 0.0)
    assert ten["rmse_relative"] == pytest.approx(0, abs=1e-6)


@given(scale=st.floats(0.2, 3), shift=st.floats(-1, 1))
def test_alignment_undoes_any_scale_and_shift(scale: float, shift: float) -> None:
    true = labels("depth")
    values = score("depth", true * scale + shift, true, KEYS).dataset
    assert values["abs_rel_aligned"] == pytest.approx(0, abs=1e-6)
    assert values["delta1_aligned"] == 1.0


def test_invalid_depth_does_not_count() -> None:
    true = labels("depth")
    clean = score("depth", 1.1 * true, true, KEYS).dataset
    pred = 1.1 * true
    # 1 % of the pixels, so that the rest keeps its range.
    rows, columns = [0, 1, 2], [3, 4, 5]
    spoilt = true.copy()
    spoilt[:, rows, columns] = [0.0, np.nan, np.inf]
    values = score("depth", pred, spoilt, KEYS).dataset
    assert values["abs_rel"] == pytest.approx(clean["abs_rel"])
    assert values["abs_rel_aligned"] == pytest.approx(0, abs=1e-6)
    assert values["delta1"] == 1.0


def test_scale_invariant_error_forgives_one_factor() -> None:
    true = labels("albedo")
    values = score("albedo", 0.7 * true, true, KEYS).dataset
    assert values["si_mse"] == pytest.approx(0, abs=1e-12)
    assert values["mse"] == pytest.approx(((0.3 * true) ** 2).mean())
    assert values["l1"] == pytest.approx((0.3 * true).mean())


@pytest.mark.parametrize("task", ["normal", "albedo", "shading", "depth"])
def test_both_layouts_score_alike(task: str) -> None:
    true, pred = labels(task, 0), labels(task, 1)
    first = [np.moveaxis(a, -1, 1) if a.ndim == 4 else a[:, None] for a in (pred, true)]
    pd.testing.assert_frame_equal(score(task, pred, true, KEYS).values, score(task, *first, KEYS).values)


# -------------------------------------------------------------------------------- segmentation
def test_segmentation_counted_by_hand() -> None:
    """Labels: 2 bed, 2 wall, 1 ignored. Predicted: 1 bed right, 1 bed as lamp, walls right."""
    true = np.array([[[7, 7, 0, 0, 255]]])
    pred = np.array([[[7, 36, 0, 0, 7]]])
    values = score("segmentation", pred, true, ["a"]).dataset
    assert values["overall_acc"] == pytest.approx(3 / 4)
    assert values["mean_acc"] == pytest.approx((1 / 2 + 1) / 2)
    assert values["mean_iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert values["mean_iou_union"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert values["five_iou"] == values["iou_bed"] == pytest.approx(1 / 2)
    assert values["image_mean_iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert values["iou_lamp"] == 0  # predicted, so the union is not empty
    assert np.isnan(values["acc_lamp"])
    assert np.isnan(values["iou_pillow"])


def test_the_dataset_score_pools_pixels_over_images() -> None:
    """One image has 1 bed pixel (wrong), another 9 (right): pooled IoU is 9 / 10, not their mean."""
    true = np.array([[[7] + [0] * 9], [[7] * 9 + [0]]])
    pred = np.array([[[0] * 10], [[7] * 9 + [0]]])
    assert score("segmentation", pred, true, ["a", "b"]).dataset["iou_bed"] == pytest.approx(9 / 10)


def test_agrees_with_the_segmentation_metric() -> None:
    from torch import from_numpy

    from dmp_core.evaluation.metrics import SegmentationScore

    true, pred = labels("segmentation", 0).astype(np.int64), labels("segmentation", 1).astype(np.int64)
    true[:, 0, :2] = 255
    reference = SegmentationScore(num_classes=150, ignore_index=255)
    reference.update(from_numpy(pred), from_numpy(true))
    expected, values = reference.compute(), score("segmentation", pred, true, KEYS).dataset
    assert values["overall_acc"] == pytest.approx(float(expected["overall_acc"]))
    assert values["iou_bed"] == pytest.approx(float(expected["iou"][7]))
    assert values["acc_window"] == pytest.approx(float(expected["acc"][8]))
    assert values["mean_acc"] == pytest.approx(float(expected["mean_acc"]))
    assert values["mean_iou_union"] == pytest.approx(float(expected["mean_iou"]))


def test_the_bootstrap_of_iou_equals_scoring_the_drawn_images() -> None:
    true, pred = labels("segmentation", 0), labels("segmentation", 1)
    table = score("segmentation", pred, true, KEYS)
    drawn = np.array([0, 0, 3, 4, 4])
    weights = np.bincount(drawn, minlength=N)[None].astype(float)
    expected = score("segmentation", pred[drawn], true[drawn], KEYS).dataset
    for name in ("mean_iou", "five_acc", "overall_acc", "iou_window"):
        assert table.statistic(metric("segmentation", name))(weights)[0] == pytest.approx(expected[name]), name


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"outside 0…149"):
        find_modality("segmentation").areas(np.zeros((1, 2, 2)), np.full((1, 2, 2), 200))


# ----------------------------------------------------------------------------- own classes
PARTS = ClassesModality(classes=["none", "bolt", "nut"], ignore=9, headline=["bolt", "nut"]).build("parts")


def test_own_classes_counted_by_hand(tmp_path: Path) -> None:
    """Labels: 2 bolts, 2 of nothing, 1 ignored. Predicted: 1 bolt right, 1 bolt as nut, nothing right."""
    table = score(PARTS, np.array([[[1, 2, 0, 0, 1]]]), np.array([[[1, 1, 0, 0, 9]]]), ["a"], split="test")
    table.save(tmp_path / "scores.parquet")
    values = ScoreTable.load(tmp_path / "scores.parquet", PARTS).dataset
    assert set(values) == {m.name for m in PARTS.metrics}
    assert values["overall_acc"] == pytest.approx(3 / 4)
    assert values["mean_iou"] == values["mean_acc"] == pytest.approx(1 / 2)  # of bolts alone: no label is a nut
    assert values["mean_iou_union"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert values["image_mean_iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert aggregate([table], samples=20)["parts"]["test"]["DMP"]["metrics"]["mean_iou"]["mean"] == 0.5


def test_a_table_is_read_with_its_modality(tmp_path: Path) -> None:
    score(PARTS, np.zeros((1, 4, 4), np.uint8), np.ones((1, 4, 4), np.uint8), ["a"]).save(tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="'parts' is unknown"):
        ScoreTable.load(tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="scores of parts, not of normal"):
        ScoreTable.load(tmp_path / "scores.parquet", find_modality("normal"))


def test_blind_predictors_of_own_classes() -> None:
    labels = np.array([[[9, 9, 9, 2, 2, 0]]], dtype=np.uint8)
    assert constant_prediction(PARTS, labels) == 2
    assert mean_map(PARTS, labels).tolist() == [[2, 2, 2, 2, 2, 0]]
    with pytest.raises(NothingLabelled, match="parts: no valid training label"):
        mean_map(PARTS, np.full((1, 2, 2), 9, np.uint8))


# ------------------------------------------------------------------------ tables and streaming
@pytest.mark.parametrize("task", BUILT_IN)
def test_streaming_gives_the_same_table(task: str) -> None:
    true, pred = labels(task, 0), labels(task, 1)
    scorer = Scorer(task, split="in_domain")
    for i in range(0, N, 2):
        scorer.update(pred[i : i + 2], true[i : i + 2], KEYS[i : i + 2])
    whole = score(task, pred, true, KEYS, split="in_domain")
    pd.testing.assert_frame_equal(scorer.table().values, whole.values)
    assert scorer.table().dataset == pytest.approx(whole.dataset, nan_ok=True)


@pytest.mark.parametrize("task", BUILT_IN)
def test_a_part_of_a_table_is_the_table_of_that_part(task: str) -> None:
    true, pred = labels(task, 0), labels(task, 1)
    part = score(task, pred, true, KEYS).only({KEYS[1], KEYS[0], "not there"})
    alone = score(task, pred[:2], true[:2], KEYS[:2])
    pd.testing.assert_frame_equal(part.values, alone.values)
    assert part.dataset == pytest.approx(alone.dataset, nan_ok=True)


@pytest.mark.parametrize("task", ["segmentation", "normal"])
def test_a_saved_table_comes_back_whole(task: str, tmp_path: Path) -> None:
    table = score(task, labels(task, 0), labels(task, 1), KEYS, row="VAE ceiling", split="out_of_domain")
    table.save(tmp_path / "scores.parquet")
    loaded = ScoreTable.load(tmp_path / "scores.parquet")
    assert (loaded.modality.name, loaded.row, loaded.split) == (task, "VAE ceiling", "out_of_domain")
    pd.testing.assert_frame_equal(loaded.values, table.values)
    assert loaded.dataset == pytest.approx(table.dataset, nan_ok=True)
    plain = pd.read_parquet(tmp_path / "scores.parquet")
    assert {"key", find_modality(task).image_metric.name} <= set(plain.columns)


def test_a_file_that_is_no_table_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"x\.parquet.*run the evaluate stage again"):
        ScoreTable.load(tmp_path / "x.parquet")


def test_every_per_image_metric_is_a_column() -> None:
    for task in BUILT_IN:
        columns = set(score(task, labels(task), labels(task), KEYS).values.columns)
        assert {m.name for m in find_modality(task).metrics if m.level == "image"} | {"key"} == columns


@pytest.mark.parametrize(
    ("pred", "true", "keys", "message"),
    [
        (np.ones((2, 4, 4)), np.ones((2, 4, 5)), ["a", "b"], "do not match"),
        (np.ones((2, 4, 4)), np.ones((2, 4, 4)), ["a"], "do not match"),
        (np.ones((2, 4, 4, 2)), np.ones((2, 4, 4, 2)), ["a", "b"], "expected images"),
    ],
)
def test_misfitting_arrays_are_input_errors(pred: Any, true: Any, keys: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score("depth", pred, true, keys)


def test_an_unknown_task_and_an_empty_split_are_input_errors() -> None:
    with pytest.raises(InputError, match="choose one of: normal"):
        Scorer("normals")
    with pytest.raises(InputError, match="no images to score"):
        Scorer("normal").table()


# ---------------------------------------------------------------------------------- constants
@pytest.mark.parametrize("task", BUILT_IN)
def test_the_constant_is_perfect_on_constant_labels(task: str) -> None:
    one = {"normal": [0.0, 0.6, 0.8], "depth": 2.5, "segmentation": 7, "albedo": [0.2, 0.4, 0.6], "shading": 0.5}[task]
    shape = (N, H, W, 3) if isinstance(one, list) else (N, H, W)
    true = np.broadcast_to(np.array(one), shape)
    value = constant_prediction(task, iter(true))
    table = score_constant(task, value, true, KEYS)
    primary = find_modality(task).primary_metric
    assert table.row == "constant"
    assert table.dataset[primary.name] == pytest.approx(1.0 if primary.higher_is_better else 0.0, abs=1e-3)


def test_the_constant_normal_is_the_mean_direction() -> None:
    true = np.array([[[[1.0, 0, 0], [0, 1.0, 0]]]])
    assert constant_prediction("normal", true) == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])


def test_the_constant_class_is_the_most_frequent_one_and_ignores_the_unlabelled() -> None:
    true = np.array([[[255, 255, 255, 3, 3, 0]]], dtype=np.uint8)
    assert constant_prediction("segmentation", true) == 3


def test_the_constant_depth_is_the_median_of_the_valid_pixels() -> None:
    true = [np.array([[1.0, 2.0, 0.0]]), np.array([[4.0, np.nan, np.inf]])]
    assert constant_prediction("depth", true) == 2.0


@given(st.lists(st.floats(2.0**-6, 1024, width=16), min_size=1, max_size=60), st.floats(0.01, 1))
def test_histogram_quantiles_are_exact(values: list[float], share: float) -> None:
    histogram = HalfHistogram()
    for value in values:
        histogram.update(np.array([value], dtype=np.float16))
    rank = max(1, int(np.ceil(share * len(values))))
    assert histogram.quantile(share) == sorted(np.float16(v) for v in values)[rank - 1]


def test_a_constant_needs_labels() -> None:
    def none() -> Iterator[np.ndarray]:
        yield from ()

    for task in BUILT_IN:
        with pytest.raises(InputError, match="no valid training label"):
            constant_prediction(task, none())


def test_the_constant_takes_the_labels_layout() -> None:
    value = np.array([0.0, 0.6, 0.8])
    last = constant_like("normal", value, np.zeros((2, 8, 9, 3)))
    first = constant_like("normal", value, np.zeros((2, 3, 8, 9)))
    assert np.array_equal(np.moveaxis(last, -1, 1), first)


# ------------------------------------------------------------------------------------ mean map
@pytest.mark.parametrize("task", BUILT_IN)
def test_the_mean_map_is_perfect_where_all_labels_are_one_map(task: str) -> None:
    true = np.repeat(labels(task, count=1), N, axis=0)
    found = mean_map(task, iter(true))
    table = score(task, np.stack([map_like(task, found, label) for label in true]), true, KEYS)
    primary = find_modality(task).primary_metric
    assert table.dataset[primary.name] == pytest.approx(1.0 if primary.higher_is_better else 0.0, abs=1e-3)


def test_the_mean_map_is_the_mean_of_valid_values_per_pixel() -> None:
    depth = [np.array([[1.0, 2.0, 0.0]]), np.array([[3.0, np.nan, np.inf]])]
    assert mean_map("depth", depth).tolist() == [[2.0, 2.0, 2.0]]  # where nothing is valid, the mean of all: (1+3+2)/3
    normal = [np.array([[[1.0, 0, 0]]]), np.array([[[0, 1.0, 0]]])]
    assert mean_map("normal", normal)[0, 0] == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])
    codes = [np.full((1, 2), 255, np.uint8), np.zeros((1, 2), np.uint8)]
    assert mean_map("shading", codes).tolist() == [[0.5, 0.5]]


def test_the_mean_map_of_normals_that_disagree_is_their_mean_direction() -> None:
    """Right, left, and up at 60° from the viewer's axis: a mean of length 1/3, which still has a direction."""
    toward = [0.0, np.sqrt(0.75), 0.5]
    true = np.tile(np.array([[1.0, 0, 0], [-1.0, 0, 0], toward])[:, None, None], (1, H, W, 1))
    true[:, 0, 0] = [[1.0, 0, 0], [-1.0, 0, 0], [0, 0, 0]]  # a pixel that has none
    found = mean_map("normal", true)
    assert found[1:] == pytest.approx(np.tile(toward, (H - 1, W, 1)))
    assert found[0, 0].tolist() == [0, 0, 0]
    assert map_like("normal", found, true[0])[1:] == pytest.approx(found[1:])
    values = score("normal", np.stack([found] * 3), true, list("abc")).values
    assert values["angular_median_deg"].tolist() == pytest.approx([90, 90, 0], abs=1e-3)


def test_the_mean_map_of_classes_is_the_most_frequent_at_each_pixel() -> None:
    ids = [np.array([[3, 255, 255]]), np.array([[3, 5, 255]]), np.array([[0, 5, 255]])]
    assert mean_map("segmentation", [one.astype(np.uint8) for one in ids]).tolist() == [[3, 5, 3]]


def test_the_mean_map_takes_the_size_of_the_label() -> None:
    found = mean_map("albedo", [np.zeros((8, 8, 3)), np.ones((16, 16, 3))])
    assert found.shape == (8, 8, 3)
    assert map_like("albedo", found, np.zeros((24, 12, 3))).shape == (24, 12, 3)
    assert found == pytest.approx(0.5)
    with pytest.raises(InputError, match="no valid training label"):
        mean_map("depth", [])


# ---------------------------------------------------------------------------------- aggregate
def three_rows(split: str = "in_domain", error: float = 10, count: int = N) -> list[ScoreTable]:
    true = labels("normal", count=count)
    keys = [f"{split}-{i}" for i in range(count)]
    tables = [
        score("normal", rotated(true, degrees), true, keys, row=row, split=split)
        for row, degrees in (("DMP", error), ("VAE ceiling", 2), ("constant", 40))
    ]
    return tables


def test_aggregate_reports_means_intervals_and_verdicts() -> None:
    result = aggregate(three_rows(), samples=200)
    rows = result["normal"]["in_domain"]
    assert list(rows) == ["DMP", "VAE ceiling", "constant"]
    assert rows["DMP"]["images"] == N
    assert rows["DMP"]["metrics"]["angular_deg"]["mean"] == pytest.approx(10, abs=1e-3)
    assert rows["DMP"]["beats_constant"] is True
    assert rows["DMP"]["versus_constant"]["difference"] == pytest.approx(-30, abs=1e-3)
    assert rows["constant"]["beats_constant"] is None
    assert aggregate(three_rows(), samples=200) == result


def test_worse_than_the_constant_or_within_the_noise_is_not_a_win() -> None:
    assert aggregate(three_rows(error=50), samples=200)["normal"]["in_domain"]["DMP"]["beats_constant"] is False
    rng = np.random.default_rng(0)
    true = labels("depth", count=8)
    keys = list("abcdefgh")
    rows = [score("depth", true * rng.uniform(0.7, 1.3, (8, 1, 1)), true, keys, row=row) for row in ("DMP", "constant")]
    assert aggregate(rows, samples=500)["depth"][""]["DMP"]["beats_constant"] is False


def test_aggregates_are_valid_json_even_where_nothing_is_defined() -> None:
    true = np.full((2, 4, 4), 3)
    table = score("segmentation", true, true, ["a", "b"], split="in_domain")
    result = aggregate([table], samples=100)
    text = json.dumps(result, allow_nan=False)
    metrics = json.loads(text)["segmentation"]["in_domain"]["DMP"]["metrics"]
    assert metrics["iou_bed"] == {"mean": None, "low": None, "high": None}
    assert metrics["mean_iou"]["mean"] == 1.0


def test_rows_must_share_their_images() -> None:
    ours, _, constant = three_rows()
    other = ScoreTable(find_modality("normal"), constant.values.assign(key=list("vwxyz")), "constant", "in_domain")
    with pytest.raises(InputError, match="different images"):
        aggregate([ours, other], samples=100)
    with pytest.raises(InputError, match="two tables"):
        aggregate([ours, ours], samples=100)


# ------------------------------------------------------------------------- cases and registry
def test_cases_follow_the_metrics_direction() -> None:
    values = pd.DataFrame(
        {"key": list("abcde"), "angular_deg": [5.0, 1, 9, 3, np.nan], "image_mean_iou": [5.0, 1, 9, 3, 2]}
    )
    table = ScoreTable(find_modality("normal"), values)
    assert pick_cases(table, metric("normal", "angular_deg")) == {"best": "b", "median": "a", "worst": "c"}
    assert pick_cases(table, find_modality("segmentation").image_metric) == {"best": "c", "median": "d", "worst": "b"}
    nothing = ScoreTable(table.modality, values.assign(angular_deg=np.nan))
    assert pick_cases(nothing, metric("normal", "angular_deg")) == {}


def test_the_registry_is_complete_and_names_are_unique() -> None:
    assert list(describe()) == list(BUILT_IN)
    for task in BUILT_IN:
        metrics = find_modality(task).metrics
        names = [m.name for m in metrics]
        assert len(set(names)) == len(names), task
        assert find_modality(task).image_metric.level == "image"
        assert all(m.description.endswith(".") for m in metrics)
    compat = [m.name for m in find_modality("normal").metrics if m.form == "dmp_compat"]
    assert compat == ["angular_dmp_compat"]
    assert json.loads(json.dumps(describe()))["normal"][0]["name"] == "angular_deg"
    with pytest.raises(InputError, match="choose one of: angular_deg"):
        metric("normal", "angle")


# ------------------------------------------------------------------------------- nothing to score
NOTHING = {
    "normal": np.zeros((N, H, W, 3)),
    "depth": np.zeros((N, H, W)),
    "segmentation": np.full((N, H, W), 255, np.uint8),
}


@pytest.mark.parametrize("task", NOTHING)
def test_labels_without_a_valid_pixel_have_no_score_and_no_winner(task: str, tmp_path: Path) -> None:
    rows = [score(task, labels(task), NOTHING[task], KEYS, row=row) for row in ("DMP", "constant")]
    loaded = []
    for number, row in enumerate(rows):
        row.save(tmp_path / f"{number}.parquet")
        loaded.append(ScoreTable.load(tmp_path / f"{number}.parquet"))
        pd.testing.assert_frame_equal(loaded[-1].values, row.values)
    entry = aggregate(loaded, samples=100)[task][""]["DMP"]
    assert entry["images"] == N
    assert entry["metrics"][find_modality(task).primary_metric.name] == {"mean": None, "low": None, "high": None}
    assert entry["beats_constant"] is None
    assert pick_cases(loaded[0], find_modality(task).image_metric) == {}


def test_an_image_without_labels_keeps_its_row_among_others(tmp_path: Path) -> None:
    true = labels("segmentation")
    true[1] = 255
    table = score("segmentation", labels("segmentation", 1), true, KEYS)
    table.save(tmp_path / "scores.parquet")
    np.testing.assert_array_equal(ScoreTable.load(tmp_path / "scores.parquet").areas, table.areas)
    others = np.arange(N) != 1
    rest = score("segmentation", labels("segmentation", 1)[others], true[others], list(np.array(KEYS)[others]))
    assert table.dataset == pytest.approx(rest.dataset, nan_ok=True)


@pytest.mark.parametrize("task", NOTHING)
def test_training_labels_without_a_valid_pixel_fit_nothing(task: str) -> None:
    with pytest.raises(NothingLabelled, match=f"{task}: no valid training label"):
        constant_prediction(task, NOTHING[task])
