"""Pairs are drawn in an order that (seed, step) fixes, and mirrored together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_core.errors import InputError
from dmp_core.images import image_to_vae
from dmp_core.modalities import Code, find_modality
from dmp_core.training.pairs import ImagePairs, RowsOnDisk
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


# ---------------------------------------------------------------------------------- rows on disk
def rows(folder: Path, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Written one by one, and mapped; each row has its number's low byte in every place."""
    kept = RowsOnDisk(folder, "images")
    for number in range(count):
        kept.append(np.full(shape, number % 256, np.uint8), str(number))
    return kept.mapped()


def held() -> int:
    """Bytes of this process's memory that belong to no file."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
def test_pairs_on_disk_take_no_memory_however_many_they_are(tmp_path: Path) -> None:
    def used(count: int) -> ImagePairs:
        images, targets = rows(tmp_path / "work", count, (512, 512, 3)), rows(tmp_path / "work", count, (3, 512, 512))
        pairs = ImagePairs([str(number) for number in range(count)], images, targets, "albedo")
        for step in range(4):
            x, y = pairs.batch(step, 2, seed=0, flip=True)
            assert torch.equal(x, y)
        pairs.digest()
        return pairs

    few, before = used(4), held()
    many = used(64)
    assert held() - before < many.images.nbytes / 4  # of twice that in the files
    assert len(few) < len(many)
    assert not list((tmp_path / "work").iterdir())


def test_pairs_on_disk_are_drawn_as_those_in_memory(tmp_path: Path) -> None:
    memory, _ = normal_pairs(codes=True)
    kept = [RowsOnDisk(tmp_path, "images") for _ in range(2)]
    for number, pair in enumerate(zip(memory.images, memory.targets, strict=True)):
        for file, row in zip(kept, pair, strict=True):
            file.append(row, str(number))
    mapped = ImagePairs(memory.keys, kept[0].mapped(), kept[1].mapped(), "normal")
    assert mapped.digest() == memory.digest()
    for step in range(5):
        for one, other in zip(memory.batch(step, 3, 1, True), mapped.batch(step, 3, 1, True), strict=True):
            assert torch.equal(one, other)


def test_rows_of_different_sizes_and_none_at_all_are_refused(tmp_path: Path) -> None:
    kept = RowsOnDisk(tmp_path, "images")
    with pytest.raises(InputError, match="images: there is no pair to train on"):
        kept.mapped()
    kept.append(np.zeros((4, 4, 3), np.uint8), "train-00000000")
    with pytest.raises(InputError, match=r"^images: train-00000001: uint8 \(4, 5, 3\), and the first .*one size"):
        kept.append(np.zeros((4, 5, 3), np.uint8), "train-00000001")
