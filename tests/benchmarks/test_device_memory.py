"""The memory that the registry states is the one that is counted at full size, and it fits a card of 24 GB."""

from __future__ import annotations

import math

import pytest

from benchmarks import device_memory
from dmp_core.config import load_config
from dmp_core.stages.estimate import OPERATIONS
from dmp_core.weights import registry

GIB = 2**30


def test_a_convolution_takes_its_input_weights_and_output():
    import torch

    with device_memory.fake() as memory:
        layer = device_memory.on_device(lambda: torch.nn.Conv2d(3, 8, 3, padding=1, bias=False))
        assert memory.now == 8 * 3 * 9 * 4
        layer(torch.rand(2, 3, 64, 64))
    assert memory.most == 4 * (8 * 3 * 9 + 2 * (3 + 8) * 64 * 64)


@pytest.mark.parametrize("artefact", ["normal", "depth", "segmentation", "albedo", "shading", "latents", "ceiling"])
def test_the_registry_states_the_counted_memory(artefact):
    config = load_config("paper")
    own = {"latents": device_memory.latents, "ceiling": device_memory.ceiling}
    peak = own[artefact](config) if artefact in own else device_memory.labels(config, artefact)
    model = registry.find(peak.model)
    assert model is not None
    stated = model.vram_gb * 1e9
    assert peak.total <= 22 * GIB
    assert peak.total <= stated
    if artefact != "latents":  # of Stable Diffusion, the labels' way through the VAE is the largest
        assert math.isclose(stated, peak.total, rel_tol=0.03)


@pytest.mark.slow
@pytest.mark.e2e
def test_the_estimates_operations_are_the_counted_ones():
    assert pytest.approx(device_memory.operations(), rel=0.02) == OPERATIONS


@pytest.mark.slow
@pytest.mark.parametrize("artefact", ["prompts", "images", "train", "predict"])
def test_every_other_artefact_of_the_preset_fits_a_card_of_24_gb(artefact):
    peak = getattr(device_memory, artefact)(load_config("paper"))
    model = registry.find(peak.model)
    assert model is not None
    assert peak.total <= min(22 * GIB, model.vram_gb * 1e9)
