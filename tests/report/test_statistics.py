"""The dataset section's counts."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_core.report.build import draw_plots, metrics_record, render_page
from dmp_core.report.data import ReportData
from dmp_core.report.statistics import StatisticsCollector, entropy_bits


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


@pytest.mark.parametrize(
    ("counts", "bits"), [([1] * 8, 3), ([5, 5], 1), ([7], 0), ([], 0), ([3, 0], 0), ([3, 1], 0.8112781)]
)
def test_entropy(counts: list[int], bits: float) -> None:
    assert entropy_bits(counts) == pytest.approx(bits)


def test_words_are_counted_per_trait_and_their_entropy_is_shown() -> None:
    collector = StatisticsCollector()
    for colours in (["red", "blue"], ["red"], ["blue"]):
        collector.update("a caption", traits={"colour": colours, "style": []})
    result = collector.result()
    assert result.traits == {"colour": {"red": 2, "blue": 2}, "style": {}}
    data = ReportData(title="Words", config_yaml="", metrics={}, statistics={"train": result})
    page = render_page(data, [], draw_plots(data))
    assert "1.00 bits, 2 values" in page
    assert page.count(" bits, ") == 1
    assert metrics_record(data)["statistics"]["train"]["trait_entropy_bits"] == {"colour": 1, "style": 0}
