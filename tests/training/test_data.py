"""The order of training data is a function of (seed, step) and covers all samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.errors import InputError
from dmp_core.training.data import LatentPairs
from dmp_core.training.latents import LatentColumn
from tests.training.conftest import toy_pairs


def column(name: str, keys: tuple[str, ...] = ("a", "b", "c"), channels: int = 1) -> LatentColumn:
    values = torch.arange(len(keys)).float().view(-1, 1, 1, 1).expand(-1, channels, 2, 2)
    return LatentColumn(name, keys, values, -values - 1)


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 5))
def test_every_epoch_sees_every_sample_once(samples, batch_size, seed):
    pairs = toy_pairs(batch_size, samples, seed)
    epochs = 3
    steps = -(-samples * epochs // batch_size)
    drawn = torch.cat([pairs.batch(step).indices for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(drawn[epoch * samples : (epoch + 1) * samples].tolist()) == list(range(samples))


@given(st.integers(0, 1000))
def test_a_step_does_not_depend_on_the_steps_before(step):
    fresh, used = toy_pairs(), toy_pairs()
    for earlier in range(5):
        used.batch(earlier)
    a, b = fresh.batch(step), used.batch(step)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.flips, b.flips)
    assert torch.equal(a.timesteps, b.timesteps)


def test_seeds_and_steps_differ():
    a, b = toy_pairs(seed=0), toy_pairs(seed=1)
    draws = [p.batch(step).timesteps.tolist() for p in (a, b) for step in range(5)]
    assert len({tuple(draw) for draw in draws}) == 10


def test_timesteps_are_uniform_and_flips_fair():
    pairs = toy_pairs(batch_size=50, samples=10)
    batches = [pairs.batch(step) for step in range(400)]
    timesteps = torch.cat([batch.timesteps for batch in batches])
    counts = torch.bincount(timesteps, minlength=1000)
    assert counts.shape == (1000,)
    # 20 expected in each of 1000 cells: chi-square has mean 999 and standard deviation 45.
    assert 800 < float(((counts - 20.0) ** 2 / 20).sum()) < 1200
    assert torch.cat([batch.flips for batch in batches]).float().mean() == pytest.approx(0.5, abs=0.02)


def test_gather_takes_image_and_label_of_the_same_sample_and_side():
    pairs = LatentPairs(column("image"), replace(column("depth"), plain=column("depth").plain), 3)
    for step in range(10):
        batch = pairs.batch(step)
        x, y = pairs.gather(batch)
        assert torch.equal(x, y)
        expected = torch.where(batch.flips == 1, -batch.indices - 1, batch.indices)
        assert torch.equal(x[:, 0, 0, 0].long(), expected)


def test_parts_of_a_batch_make_the_whole():
    batch = toy_pairs().batch(3)
    parts = [batch.part(rank, 2) for rank in range(2)]
    assert sorted(torch.cat([p.indices for p in parts]).tolist()) == sorted(batch.indices.tolist())
    assert [len(p.timesteps) for p in parts] == [2, 2]


def test_without_mirrored_latents_nothing_is_mirrored():
    pairs = LatentPairs(column("image"), replace(column("depth"), flipped=None), 3)
    assert not pairs.can_flip
    assert not any(pairs.batch(step).flips.any() for step in range(20))


def test_excluded_samples_have_no_effect():
    keys, fewer = tuple("abcdef"), tuple("acdf")
    whole = [column(name, keys, 2) for name in ("image", "depth")]
    kept = torch.tensor([keys.index(key) for key in fewer])
    part = [replace(c, keys=fewer, plain=c.plain[kept], flipped=c.flipped[kept]) for c in whole]
    excluding, without = LatentPairs(*whole, 3, 7, exclude={"b", "e"}), LatentPairs(*part, 3, 7)
    assert excluding.keys == fewer
    assert len(excluding) == 4
    for step in range(6):
        for mine, theirs in zip(
            excluding.gather(excluding.batch(step)), without.gather(without.batch(step)), strict=True
        ):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (column("depth", ("a", "b")), "'image' .3 samples. and 'depth' .2. .*only one has c"),
        (column("depth", ("a", "c", "b")), "their order differs"),
        (column("depth", channels=2), "same VAE and resolution"),
    ],
)
def test_columns_that_do_not_fit_are_refused(target, words):
    with pytest.raises(InputError, match=words):
        LatentPairs(column("image"), target, 2)
