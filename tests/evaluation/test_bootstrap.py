"""Intervals compared with statistics in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_core.errors import InputError
from dmp_core.evaluation import bootstrap
from dmp_core.evaluation.bootstrap import (
    Interval,
    Resamples,
    difference,
    percentile_interval,
    percentile_intervals,
    weighted_mean,
)
from tests.peak import peak_memory


def mean_interval(values: np.ndarray, samples: int, seed: int = 0) -> Interval:
    return percentile_interval(weighted_mean(values), Resamples(len(values), samples, seed))


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    (weights,) = Resamples(17, 200, seed=3).blocks()
    assert weights.shape == (200, 17)
    assert np.all(weights.sum(axis=1) == 17)
    assert np.all(weights == weights.round())


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert mean_interval(values, 300, seed=5) == mean_interval(values, 300, seed=5)
    assert mean_interval(values, 300, seed=5) != mean_interval(values, 300, seed=6)


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for repeat in range(300):
        interval = mean_interval(rng.exponential(2.0, size=80), 300, seed=repeat)
        covered += interval.low <= 2.0 <= interval.high
    # 300 draws at 95 % have a standard error of 1.3 %; a skewed sample of 80 reduces the coverage a little.
    assert 0.89 <= covered / 300 <= 0.99


def test_width_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(10, 3, size=2000)
    interval = mean_interval(values, 2000)
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_constant_values_have_no_width() -> None:
    interval = mean_interval(np.full(9, 4.25), 100)
    assert (interval.value, interval.low, interval.high) == pytest.approx((4.25, 4.25, 4.25))


def test_images_without_a_value_do_not_count() -> None:
    interval = mean_interval(np.array([1.0, np.nan, 3.0, np.nan]), 400)
    assert interval.value == 2.0
    assert 1.0 <= interval.low <= interval.high <= 3.0


def test_nothing_known_gives_nan() -> None:
    interval = mean_interval(np.full(5, np.nan), 100)
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    assert not interval.excludes_zero()


def test_pairing_removes_the_noise_that_both_share() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.normal(20, 8, size=30)
    ours, theirs = difficulty - 1 + rng.normal(0, 0.5, 30), difficulty + rng.normal(0, 0.5, 30)
    resamples = Resamples(30, 1000)
    paired = percentile_interval(difference(weighted_mean(ours), weighted_mean(theirs)), resamples)
    alone = percentile_interval(weighted_mean(ours), resamples)
    assert paired.excludes_zero()
    assert paired.value == pytest.approx((ours - theirs).mean())
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


@pytest.mark.parametrize(("images", "samples"), [(0, 100), (5, 0)])
def test_empty_input_is_an_input_error(images: int, samples: int) -> None:
    with pytest.raises(InputError, match="at least one image"):
        Resamples(images, samples)


@pytest.mark.parametrize("images", [17, 9000])
def test_resamples_are_numpys_however_many_are_drawn_at_a_time(images):
    """The second set is too large for one block."""
    whole = np.random.default_rng(3).multinomial(images, np.full(images, 1 / images), size=1000).astype(np.float64)
    resamples = Resamples(images, 1000, seed=3)
    assert np.array_equal(np.concatenate([*resamples.blocks()]), whole)
    values = np.random.default_rng(0).random(images)
    low, high = np.quantile(whole @ values / images, [0.025, 0.975])
    interval = percentile_interval(weighted_mean(values), resamples)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)


def test_together_as_alone_and_only_one_block_at_a_time(monkeypatch):
    monkeypatch.setattr(bootstrap, "_MOST_VALUES", 64 * 2000)
    images = 2000  # 64 resamples per block
    resamples, rng = Resamples(images, 256), np.random.default_rng(5)
    means = [weighted_mean(rng.random(images)) for _ in range(2)]
    assert percentile_intervals(means, resamples) == [percentile_interval(mean, resamples) for mean in means]
    assert peak_memory(lambda: percentile_intervals(means, resamples)) < 1.3 * 64 * images * 8
