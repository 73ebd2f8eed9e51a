"""The renderer's truth is packed and unpacked without changing its label files."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import numpy as np
import pytest

from dmp_core.dataset.truth import pack_truth, unpack_truth
from dmp_core.errors import InputError
from dmp_core.labelers import build_labeler
from dmp_core.modalities import find_modality
from dmp_core.render import PROVIDES


def rendered(seed: int = 0) -> SimpleNamespace:
    random = np.random.default_rng(seed)
    normal = random.standard_normal((8, 6, 3))
    return SimpleNamespace(
        rgb=random.integers(0, 256, (8, 6, 3), dtype=np.uint8),
        normal=(normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32),
        depth=random.uniform(0.5, 80, (8, 6)).astype(np.float32),
        segmentation=random.integers(0, 150, (8, 6), dtype=np.uint8),
        albedo=random.integers(0, 256, (8, 6, 3), dtype=np.uint8),
        shading=random.integers(0, 256, (8, 6), dtype=np.uint8),
        info={},
    )


def test_truth_round_trip():
    image = rendered()
    truth = unpack_truth(pack_truth(image, PROVIDES))
    assert set(truth) == {"normal", "depth", "segmentation", "albedo", "shading"}
    np.testing.assert_allclose(truth["normal"], image.normal, atol=5e-4)
    for task in ("depth", "segmentation", "albedo", "shading"):
        np.testing.assert_array_equal(truth[task], getattr(image, task))
    for task, label in truth.items():
        np.load(io.BytesIO(find_modality(task).encode(label))) if task == "depth" else find_modality(task).encode(label)


def test_truth_bytes_do_not_depend_on_the_clock(monkeypatch):
    first = pack_truth(rendered(), PROVIDES)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400 * 400)
    assert pack_truth(rendered(), PROVIDES) == first
    assert pack_truth(rendered(1), PROVIDES) != first


def test_float_reflectance_becomes_codes():
    image = rendered()
    expected = image.albedo
    image.albedo = (expected / 255).astype(np.float32)
    np.testing.assert_array_equal(unpack_truth(pack_truth(image, PROVIDES))["albedo"], expected)


def test_missing_or_misshapen_truth_is_named():
    image = rendered()
    image.depth = image.depth[:4]
    with pytest.raises(InputError, match="differ in size"):
        pack_truth(image, PROVIDES)
    del image.depth
    with pytest.raises(InputError, match="no depth"):
        pack_truth(image, PROVIDES)
    with pytest.raises(InputError, match=r"truth\.npz: unreadable"):
        unpack_truth(b"nothing")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exact", "images.kind: render"),
        ("midas", "unknown; there are: exact"),
    ],
)
def test_labelers_that_cannot_be_built(name, words):
    with pytest.raises(InputError, match=words):
        build_labeler(name, weights="x")


def test_labelers_of_third_parties_are_found(monkeypatch):
    from importlib import metadata

    import torch  # before the patch: importing it looks for entry points

    def build(weights, device, scale):
        return lambda images: {"depth": images.mean(1) * scale}

    point = SimpleNamespace(name="mine", load=lambda: build)
    monkeypatch.setattr(metadata, "entry_points", lambda group, name=None: [point] if name in (None, "mine") else [])
    labeler = build_labeler("mine", scale=3.0)
    assert labeler(torch.ones(1, 3, 2, 2))["depth"].max() == 3.0


def test_truth_of_some_tasks_only():
    image = rendered()
    truth = unpack_truth(pack_truth({"depth": image.depth, "albedo": image.albedo}, ("depth", "albedo")))
    assert list(truth) == ["depth", "albedo"]
    np.testing.assert_array_equal(truth["depth"], image.depth)
