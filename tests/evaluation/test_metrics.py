"""Metrics by their definitions, and on misleading input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dmp_core.errors import InputError
from dmp_core.evaluation import metrics

seeds = st.integers(0, 2**31)


def unit_normals(seed: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(batch, 3, 4, 5, generator=generator), dim=1)


def depths(seed: int, batch: int = 2) -> Tensor:
    return 0.5 + 7 * torch.rand(batch, 4, 5, generator=torch.Generator().manual_seed(seed))


def tilted(degrees: float) -> Tensor:
    """Normals turned about the x axis from facing the viewer."""
    angle = math.radians(degrees)
    return torch.tensor([0.0, math.sin(angle), math.cos(angle)]).view(1, 3, 1, 1).expand(1, 3, 2, 2)


# ------------------------------------------------------------------------------------ normals
@pytest.mark.parametrize("degrees", [0.0, 0.001, 1.0, 30.0, 90.0, 150.0, 179.999, 180.0])
def test_angle_is_the_angle(degrees: float) -> None:
    assert metrics.angular_deg(tilted(degrees), tilted(0)).item() == pytest.approx(degrees, abs=1e-4)


def test_thirty_degrees_as_published() -> None:
    """The reason for the correct metric: on the published axes (right, down, away) a true 30° reads 15.2°."""
    generator = torch.Generator().manual_seed(0)
    true, other = (
        torch.nn.functional.normalize(torch.randn(1, 3, 200, 200, generator=generator), dim=1) for _ in range(2)
    )
    true[:, 2] = true[:, 2].abs()
    aside = torch.nn.functional.normalize(torch.linalg.cross(true, other, dim=1), dim=1)
    pred = true * math.cos(math.radians(30)) + aside * math.sin(math.radians(30))
    assert metrics.angular_deg(pred, true).item() == pytest.approx(30, abs=1e-3)
    axes = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1)
    published = metrics.angular_dmp_compat((axes * pred + 1) / 2, (axes * true + 1) / 2)
    assert math.degrees(published.item()) == pytest.approx(15.2, abs=0.05)


@given(seeds, st.floats(0.1, 10))
def test_angle_ignores_length_of_the_prediction(seed: int, length: float) -> None:
    pred, true = unit_normals(seed), unit_normals(seed + 1)
    torch.testing.assert_close(
        metrics.angular_deg(pred * length, true), metrics.angular_deg(pred, true), rtol=0, atol=1e-3
    )


def test_no_direction_counts_a_right_angle() -> None:
    assert metrics.angular_deg(torch.zeros(1, 3, 2, 2), tilted(0)).item() == 90


def test_pixels_without_surface_do_not_count() -> None:
    true = tilted(0).clone()
    true[..., 0, :] = 0.0039  # a zero vector in 8 bits
    pred = tilted(10).clone()
    pred[..., 0, :] = torch.tensor([0.0, 0.0, -1.0]).view(3, 1)
    assert metrics.angular_deg(pred, true).item() == pytest.approx(10, abs=1e-4)
    assert metrics.angular_deg(pred, torch.zeros_like(true)).isnan().all()


# -------------------------------------------------------------------------------------- depth
@given(seeds)
def test_perfect_depth(seed: int) -> None:
    true = depths(seed)
    assert torch.equal(metrics.abs_rel(true, true), torch.zeros(2))
    assert torch.equal(metrics.delta1(true, true), torch.ones(2))
    assert torch.equal(metrics.rmse_relative(true, true), torch.zeros(2))


@given(seeds, st.floats(0.1, 10), st.floats(-0.4, 5))
def test_relative_depth_knows_no_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    true = depths(seed)
    torch.testing.assert_close(metrics.rmse_relative(true * scale + shift, true), torch.zeros(2), rtol=0, atol=1e-4)


def test_depth_by_hand() -> None:
    true = torch.tensor([[[1.0, 2.0, 4.0, 4.0]]])
    pred = torch.tensor([[[1.1, 3.0, 4.0, 2.0]]])
    assert metrics.abs_rel(pred, true).item() == pytest.approx((0.1 + 0.5 + 0 + 0.5) / 4)
    assert metrics.delta1(pred, true).item() == 0.5
    assert metrics.delta1(pred, true, power=2).item() == 0.75
    assert metrics.rmse(pred, true).item() == pytest.approx(math.sqrt((0.01 + 1 + 0 + 4) / 4))


@pytest.mark.parametrize("hole", [0.0, -1.0, float("nan"), float("inf")])
def test_unlabelled_depth_does_not_count(hole: float) -> None:
    true, pred = depths(0), depths(1)
    holed, spoilt = true.clone(), pred.clone()
    holed[:, 0], spoilt[:, 0] = hole, 1e6
    for metric in (metrics.abs_rel, metrics.delta1, metrics.rmse, metrics.rmse_relative):
        torch.testing.assert_close(metric(spoilt, holed), metric(pred[:, 1:], true[:, 1:]))
        assert metric(pred, torch.full_like(true, hole)).isnan().all()


def test_depth_that_is_not_positive_is_wrong() -> None:
    true = depths(0)
    assert torch.equal(metrics.delta1(-true, true), torch.zeros(2))
    assert torch.equal(metrics.delta1(torch.zeros_like(true), true), torch.zeros(2))


def test_constant_maps() -> None:
    constant, true = torch.full((2, 4, 5), 3.0), depths(0)
    assert torch.equal(metrics.min_max(constant), torch.zeros(2, 4, 5))
    assert torch.equal(metrics.rmse_relative(constant, constant), torch.zeros(2))
    assert metrics.rmse_relative(constant, true).isfinite().all()
    assert metrics.rmse_relative(true, constant).isfinite().all()


# --------------------------------------------------------------------------------- any image
def test_values_are_per_image() -> None:
    pred, true = torch.zeros(3, 3, 4, 4), torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert metrics.l1(pred, true).tolist() == [0, 0.5, 1]
    assert metrics.mse(pred, true).tolist() == [0, 0.25, 1]


def test_half_precision_does_not_overflow() -> None:
    true = torch.full((1, 3, 512, 512), 60.0, dtype=torch.float16)
    assert metrics.mse(torch.zeros_like(true), true).item() == 3600


def test_input_is_checked() -> None:
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(InputError, match=r"pred is \(1, 3, 4, 4\), true is \(1, 3, 4, 5\)"):
        metrics.l1(image, torch.rand(1, 3, 4, 5))
    with pytest.raises(InputError, match=r"pred: torch.uint8; expected floats"):
        metrics.mse(image.byte(), image)
    with pytest.raises(InputError, match=r"normals: shape \(1, 4, 4\); expected \(B, 3, H, W\)"):
        metrics.angular_deg(image[:, 0], image[:, 0])
    with pytest.raises(InputError, match=r"4×4 does not shrink to 3×2"):
        metrics.shrink_dmp_compat(image, (3, 2))


# ------------------------------------------------------------------------------- segmentation
def ids(rows: list[list[int]]) -> Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def test_segmentation_by_hand() -> None:
    score = metrics.SegmentationScore(4)
    score.update(ids([[0, 0, 1, 1], [0, 2, 1, 1]]), ids([[0, 0, 1, 0], [0, 1, 255, 255]]))
    result = score.compute()
    torch.testing.assert_close(
        result["iou"], torch.tensor([3 / 4, 1 / 3, 0.0, torch.nan], dtype=torch.float64), equal_nan=True
    )
    torch.testing.assert_close(
        result["acc"], torch.tensor([3 / 4, 1 / 2, torch.nan, torch.nan], dtype=torch.float64), equal_nan=True
    )
    assert result["mean_iou"].item() == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert result["mean_acc"].item() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert result["overall_acc"].item() == pytest.approx(4 / 6)


@given(seeds)
def test_segmentation_adds_up(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pred, true = (torch.randint(0, 5, (4, 6, 6), generator=generator) for _ in range(2))
    true[torch.rand(true.shape, generator=generator) < 0.2] = 255
    whole, parts, swapped = (metrics.SegmentationScore(5) for _ in range(3))
    whole.update(pred, true)
    for index in range(4):
        parts.update(pred[index : index + 1], true[index : index + 1])
        swapped.update(pred[3 - index][None], true[3 - index][None])
    for other in (parts, swapped):
        for name, value in whole.compute().items():
            torch.testing.assert_close(other.compute()[name], value, equal_nan=True)


def test_perfect_segmentation_and_unlabelled_images() -> None:
    score = metrics.SegmentationScore(3)
    score.update(ids([[0, 2]]), ids([[0, 2]]))
    assert score.compute()["mean_iou"] == score.compute()["overall_acc"] == 1
    score.reset()
    score.update(ids([[0, 2]]), ids([[255, 255]]))
    assert score.compute()["overall_acc"].isnan()
    assert score.compute()["mean_iou"].isnan()


def test_labels_outside_the_classes() -> None:
    score = metrics.SegmentationScore(3)
    with pytest.raises(InputError, match=r"true: contains id 7; expected 0 … 2, or 255 to ignore"):
        score.update(ids([[0]]), ids([[7]]))
    with pytest.raises(InputError, match="num_classes: 0"):
        metrics.SegmentationScore(0)
