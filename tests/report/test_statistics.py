"""The dataset section's counts."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_core.report.statistics import StatisticsCollector


def test_counts_are_exact() -> None:
    collector = StatisticsCollector()
    red = np.full((2, 2, 3), [255, 0, 0], dtype=np.uint8)
    collector.update(
        "a red bed",
        "bedroom",
        rgb=red,
        labels={"segmentation": np.array([[7, 7], [0, 255]]), "depth": np.array([[1.0, 2], [3, 0]])},
    )
    collector.update(
        "a kitchen", "kitchen", rgb=np.zeros_like(red), labels={"segmentation": np.zeros((2, 2))}, family="kitchen"
    )
    collector.drop()
    result = collector.result()
    assert result.images == 2
    assert result.keywords == {"bedroom": 1, "kitchen": 1}
    assert result.families == {"kitchen": 1}
    assert result.prompt_characters == (9, 9)
    assert list(result.class_pixels) == ["wall", "bed"]
    assert result.class_pixels == pytest.approx({"wall": 5 / 7, "bed": 2 / 7})
    assert result.depth_metres == (1, 2, 3)
    assert result.mean_rgb == pytest.approx((0.5, 0, 0))
    assert result.failures == 1


def test_nothing_seen_is_no_error() -> None:
    result = StatisticsCollector().result()
    assert (result.images, result.depth_metres, result.mean_rgb) == (0, None, None)
