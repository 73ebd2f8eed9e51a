"""Inputs of a fit: latents, label images and captions of one training split match."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmp_core.config import load_config
from dmp_core.dataset.reading import column_array
from dmp_core.dataset.training import TrainingSplit
from dmp_core.diffusion.labels import encode
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.stages import find, plan
from dmp_core.store import Workspace, read_artefact
from dmp_core.weights.load import load_vae
from tests.making import make

SETTINGS = [
    "adapters={}", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1",
    "splits={train: {keywords: [bedroom], count: 3}}", "latents={flip: true, resolution: 32}",
    "train={loss: decoded, num_timesteps: 1, schedule: {spacing: trailing}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config, folder = load_config("smoke", None, SETTINGS), tmp_path_factory.mktemp("split")
    nodes = plan(config)
    make(folder, config, ("prompts", "images", "labels", "quality", "latents"))
    return config, nodes, Workspace(folder)


@pytest.mark.parametrize("task", BUILT_IN)
def test_label_images_are_what_the_label_latents_encode(made, task):
    """Including mirrored draws, at the network's working size, which is twice that of the files here."""
    config, nodes, store = made
    node = find(nodes, f"train/{task}-dmp")
    inputs = {role: source.artefact(store) for role, source in node.inputs.items()}
    split = TrainingSplit(inputs, node.config.modality, node.config.code, gates=node.config.gates)
    pairs, vae = split.latent_pairs(batch_size=8, seed=0), load_vae(config.base)
    labels = split.label_images(pairs.pixels(vae))
    batch = pairs.batch(0)
    assert 0 < batch.flips.sum() < 8
    expected = encode(vae, torch.from_numpy(labels.gather(batch)) / 127.5 - 1)
    # Codes are 8 bits and cached latents 16.
    assert (expected - pairs.gather(batch)[1]).abs().mean() < 0.02
    assert labels.codes.shape == (3, 3, 32, 32)


def test_pairs_of_images_are_mapped_from_the_fits_folder_and_equal_the_datasets(made, tmp_path):
    config, nodes, store = made
    inputs = {
        role: find(nodes, f"{role}/{name}").artefact(store)
        for role, name in (("images", "train"), ("labels", "train-albedo"))
    }
    split = TrainingSplit(inputs, find_modality("albedo"), config.latents.code, gates={})
    pairs = split.image_pairs(tmp_path)
    assert isinstance(pairs.images.base, np.memmap)
    assert isinstance(pairs.targets.base, np.memmap)
    samples = [*zip(*(read_artefact(inputs[role]) for role in ("images", "labels")), strict=True)]
    assert len(pairs) == len(samples) == 3
    albedo = find_modality("albedo")
    for number, (image, label) in enumerate(samples):
        assert pairs.keys[number] == image["__key__"]
        np.testing.assert_array_equal(pairs.images[number], column_array(None, image))
        target = np.moveaxis(albedo.decode(label[albedo.member]), -1, 0)
        np.testing.assert_allclose(pairs.targets[number] / 255, target, atol=0.003)
