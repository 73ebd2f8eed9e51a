"""Pairs are drawn in an order that (seed, step) fixes, and mirrored together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmp_core.errors import InputError
from dmp_core.images import image_to_vae
from dmp_core.modalities import Code, find_modality
from dmp_core.training.pairs import ImagePairs
from tests.methods.shapes import shapes


def normal_pairs(count: int = 5, codes: bool = False) -> tuple[ImagePairs, np.ndarray]:
    random = np.random.default_rng(3)
    normals = random.normal(size=(count, 4, 6, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    images = random.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    targets = find_modality("normal").to_image(normals, Code(depth_scale=8)).numpy()
    if codes:
        targets = ((targets + 1) * 127.5).round().astype(np.uint8)
    return ImagePairs([str(number) for number in range(count)], images, targets, "normal"), normals


@pytest.mark.parametrize("codes", [False, True])
def test_a_mirrored_pair_is_the_mirrored_image_and_its_label(codes):
    pairs, normals = normal_pairs(codes=codes)
    plain = image_to_vae(pairs.images), find_modality("normal").to_image(normals, Code(depth_scale=8))
    other = (
        image_to_vae(pairs.images[:, :, ::-1]),
        find_modality("normal").to_image(find_modality("normal").mirror(normals), Code(depth_scale=8)),
    )
    seen = set()
    for step in range(20):
        for x, y in zip(*pairs.batch(step, 3, 0, True), strict=True):
            sides = [
                (side, n) for side, (images, _) in enumerate((plain, other)) for n in range(5) if (images[n] == x).all()
            ]
            ((side, number),) = sides
            assert torch.allclose((plain, other)[side][1][number], y, atol=1 / 127 if codes else 1e-6)
            seen.add((side, number))
    assert len(seen) == 10


def test_every_epoch_sees_every_pair_once_and_never_mirrors_by_default():
    pairs, normals = normal_pairs()
    drawn = torch.cat([pairs.batch(step, 2, 1, False)[1] for step in range(5)])
    labels = find_modality("normal").to_image(normals, Code(depth_scale=8))
    found = [int((labels == y).flatten(1).all(1).nonzero()) for y in drawn]
    assert sorted(found[:5]) == sorted(found[5:]) == list(range(5))
    assert found[:5] != found[5:]


def test_a_draw_depends_only_on_seed_and_step_and_changes_nothing():
    used, fresh = normal_pairs()[0], normal_pairs()[0]
    before = used.digest()
    for step in range(4):
        used.batch(step, 3, 0, True)
    assert all(map(torch.equal, used.batch(9, 3, 0, True), fresh.batch(9, 3, 0, True)))
    assert not torch.equal(used.batch(9, 3, 0, True)[0], used.batch(9, 3, 1, True)[0])
    assert used.digest() == before


def test_the_digest_depends_on_the_labels():
    one, other = shapes(3), shapes(3)
    assert one.digest() == other.digest()
    other.targets[2, 1, 0, 0] += 0.5
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("keys", "images", "targets", "message"),
    [
        (2, np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 3, 4, 4), np.float32), "images: expected uint8"),
        (2, np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3, 4, 4)), "expected float32 in .* or uint8"),
        (3, np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3, 4, 4), np.float32), "3 keys"),
        (2, np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.float32), r"expected .* \(2, 3, 4, 4\)"),
        (0, np.zeros((0, 4, 4, 3), np.uint8), np.zeros((0, 3, 4, 4), np.float32), "no pair to train on"),
    ],
)
def test_arrays_that_do_not_match_are_refused(keys, images, targets, message):
    with pytest.raises(InputError, match=message):
        ImagePairs([str(n) for n in range(keys)], images, targets, "depth")
