"""DRIT++'s own parts: shared layers, independent draws, and its closed-form terms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from dmp_core.methods.drit.algorithm import _DritTrainer, _kl, _mode_seeking, _parameters
from dmp_core.training.pairs import ImagePairs
from tests.methods.shapes import shapes
from tests.methods.test_methods import METHODS

TINY = METHODS["drit"].short


def numbered(count: int) -> ImagePairs:
    """Pair n is an image and a label image of the one code n."""
    codes = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(codes[:, None, None, None], (count, 8, 8, 3)).copy()
    return ImagePairs([str(n) for n in codes], images, images.transpose(0, 3, 1, 2).copy(), "albedo")


@pytest.mark.parametrize(("paired_l1", "share"), [(0.0, 1 / 50), (1.0, 1.0)])
def test_domains_are_drawn_independently_without_paired_l1(paired_l1, share):
    settings = TINY.model_copy(update={"paired_l1": paired_l1, "batch_size": 50})
    trainer = _DritTrainer(settings, numbered(50), "cpu")
    draws = [trainer._draw(step) for step in range(20)]
    same = torch.cat([(draw["x"] == draw["y"])[:, 0, 0, 0] for draw in draws]).float().mean().item()
    # Of 1000 draws about 20 hit their own label by chance.
    assert same == pytest.approx(share, abs=0.02)
    assert ("paired_l1" in trainer.step(0)[2]) == bool(paired_l1)


def test_domains_share_the_ends_of_the_content_space_and_nothing_else():
    trainer = _DritTrainer(TINY, shapes(4), "cpu")
    for networks in (trainer.content, trainer.generators):
        both = set(_parameters(networks["x"])) & set(_parameters(networks["y"]))
        assert both == set(networks["x"].shared.parameters())
    for networks in (trainer.attribute, trainer.discriminators):
        assert not set(_parameters(networks["x"])) & set(_parameters(networks["y"]))


def test_kl_is_that_of_the_distributions():
    mean, log_variance = torch.randn(5, 8), torch.randn(5, 8)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert _kl(mean, log_variance).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mode_seeking_falls_as_images_differ():
    attributes = torch.zeros(2, 8), torch.full((2, 8), 2.0)
    images = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    assert _mode_seeking(images, attributes).item() == pytest.approx(4, rel=1e-3)
    assert _mode_seeking((images[0], images[0]), attributes).item() == pytest.approx(1e5, rel=1e-3)


def test_the_first_step_starts_without_knowledge():
    """Small initial weights: discriminators predict 50 %, and encoders the prior, so these terms are known."""
    _, _, terms = _DritTrainer(TINY, shapes(8), "cpu").step(0)
    even = math.log(2)
    assert terms["domain_adversarial"].item() == pytest.approx(2 * even, rel=0.02)
    assert terms["content_adversarial"].item() == pytest.approx(2 * even, rel=0.02)
    assert terms["content_discriminator"].item() == pytest.approx(2 * even, rel=0.02)
    assert terms["discriminator"].item() == pytest.approx(4 * even, rel=0.02)
    assert terms["kl"].item() == pytest.approx(0, abs=0.01)
    # |z| has mean √(2/π), and the first prediction is 0; two domains.
    assert terms["latent_regression"].item() == pytest.approx(2 * math.sqrt(2 / math.pi), rel=0.4)


def test_terms_switch_off_and_noise_depends_on_the_step():
    once = [_DritTrainer(TINY, shapes(8), "cpu").step(3)[0].item() for _ in range(2)]
    assert once[0] == once[1]
    quiet = TINY.model_copy(update={"mode_seeking": 0.0, "cross_cycle": 0.0})
    terms = _DritTrainer(quiet, shapes(8), "cpu").step(3)[2]
    assert terms["mode_seeking"].item() == terms["cross_cycle"].item() == 0
