"""Labels are kept by their files and by the VAE's image form; the bytes are always the same."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dmp_core.errors import InputError, NotFinite
from dmp_core.images import image_to_vae
from dmp_core.modalities import BUILT_IN, Code, find_modality
from dmp_core.modalities.colour import unit

SIZE = (5, 7)
MEMBERS = {"segmentation": "seg"}


def example(task: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if task == "normal":
        normal = random.standard_normal((*SIZE, 3))
        return (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
    if task == "depth":
        return random.uniform(0.2, 7.9, SIZE).astype(np.float32)
    if task == "segmentation":
        return random.integers(0, 150, SIZE).astype(np.uint8)
    return random.random((*SIZE, 3) if task == "albedo" else SIZE).astype(np.float32)


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


# -------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("task", BUILT_IN)
def test_file_holds_the_label_in_the_documented_form(task):
    label = example(task)
    modality = find_modality(task)
    assert modality.member == f"{MEMBERS.get(task, task)}.{'npy' if task == 'depth' else 'png'}"
    data = modality.encode(label)
    if task == "depth":
        stored = np.load(io.BytesIO(data))
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored, label.astype(np.float16))
        return
    stored = np.asarray(Image.open(io.BytesIO(data)))
    assert stored.dtype == np.uint8
    assert stored.shape == label.shape
    expected = {"normal": (label + 1) / 2 * 255, "segmentation": label}.get(task, label * 255)
    np.testing.assert_allclose(stored, expected, atol=0.5001)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("task", BUILT_IN)
def test_file_round_trip(task, seed):
    label = example(task, seed)
    back = find_modality(task).decode(find_modality(task).encode(label))
    if task == "normal":
        np.testing.assert_allclose(np.linalg.norm(back, axis=-1), 1, atol=1e-6)
        # Half a code in each of three axes: a chord of √3 / 255, so at most 0.4 degrees.
        assert degrees(back, label).max() < 0.4
    elif task == "segmentation":
        np.testing.assert_array_equal(back, label)
    else:
        tolerance = {"rtol": 2**-11} if task == "depth" else {"rtol": 0, "atol": 0.5001 / 255}
        np.testing.assert_allclose(back, label, **tolerance)
        assert back.dtype == np.float32


@pytest.mark.parametrize("task", BUILT_IN)
def test_second_round_trip_changes_no_byte(task):
    first = find_modality(task).encode(example(task))
    assert find_modality(task).encode(find_modality(task).decode(first)) == first


def test_codes_pass_through_unchanged():
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (np.asarray(Image.open(io.BytesIO(find_modality("shading").encode(codes)))) == codes).all()


def test_normal_without_surface_stays_without():
    label = example("normal")
    label[2, 3] = 0
    back = find_modality("normal").decode(find_modality("normal").encode(label))
    assert (back[2, 3] == 0).all()
    assert (np.linalg.norm(back, axis=-1) > 0.99).sum() == SIZE[0] * SIZE[1] - 1


def test_depth_beyond_half_precision_is_infinitely_far():
    back = find_modality("depth").decode(find_modality("depth").encode(np.array([[1.0, 1e6, np.inf]], np.float32)))
    np.testing.assert_array_equal(back, [[1, np.inf, np.inf]])


@pytest.mark.parametrize(
    ("task", "label", "words"),
    [
        ("normal", np.zeros((4, 4)), r"normal: expected \(H, W, 3\).*\(4, 4\)"),
        ("depth", np.full((4, 4), np.nan), "depth: .*NaN"),
        ("depth", np.ones((4, 4), int), "depth: expected floats"),
        ("segmentation", np.full((4, 4), 300), "ids 300"),
        ("segmentation", np.full((4, 4), 0.5), "integer class ids"),
        ("albedo", np.full((4, 4, 3), 7.0), "albedo: values 7"),
        ("shading", np.full((4, 4, 1), 0.5), r"shading: expected \(H, W\)"),
        ("colour", np.zeros((4, 4)), "modality 'colour' is unknown"),
    ],
)
def test_wrong_labels_are_named(task, label, words):
    with pytest.raises(InputError, match=words):
        find_modality(task).encode(label)


@pytest.mark.parametrize("task", BUILT_IN)
def test_damaged_files_are_named(task):
    with pytest.raises(InputError, match=task):
        find_modality(task).decode(b"no such thing")


def test_an_image_of_another_mode_is_refused_rather_than_converted():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with pytest.raises(InputError, match="segmentation: expected an 8-bit L image, found mode RGB"):
        find_modality("segmentation").decode(buffer.getvalue())


def test_files_need_no_torch():
    code = "import sys, dmp_core.labelers, dmp_core.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---------------------------------------------------------------------------------- geometry
@pytest.mark.parametrize("task", BUILT_IN)
def test_flip_twice_is_nothing_and_once_mirrors(task):
    label = example(task)
    np.testing.assert_array_equal(find_modality(task).mirror(find_modality(task).mirror(label)), label)
    mirrored = find_modality(task).mirror(label)
    if task == "normal":
        mirrored = mirrored * np.array([-1, 1, 1], np.float32)
    np.testing.assert_array_equal(mirrored[:, 0], label[:, -1])


def test_flip_of_a_wall_that_faces_left_faces_right():
    faces_left = np.zeros((2, 4, 4, 3), np.float32)
    faces_left[..., 0] = -1
    np.testing.assert_array_equal(find_modality("normal").mirror(faces_left)[..., 0], 1)


def test_flipped_normals_are_those_of_the_mirrored_surface():
    """Independent truth: normals of a height field, by finite differences, before and after mirroring it."""
    height = np.random.default_rng(0).random((9, 9))

    def normals(z: np.ndarray) -> np.ndarray:
        dy, dx = np.gradient(z)
        n = np.stack([-dx, dy, np.ones_like(z)], -1)  # rows run downwards, y points up
        return n / np.linalg.norm(n, axis=-1, keepdims=True)

    np.testing.assert_allclose(find_modality("normal").mirror(normals(height)), normals(height[:, ::-1]), atol=1e-12)


@pytest.mark.parametrize("task", BUILT_IN)
def test_resize_keeps_a_labels_kind(task):
    label = example(task)
    assert find_modality(task).resize(label, SIZE) is label or (find_modality(task).resize(label, SIZE) == label).all()
    small = find_modality(task).resize(label, (4, 6))
    assert small.shape[:2] == (4, 6)
    if task in ("segmentation", "depth"):
        assert set(np.unique(small)) <= set(np.unique(label))
    if task == "normal":
        lengths = np.linalg.norm(small, axis=-1)
        assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()


# ------------------------------------------------------------------------------------ the VAE
@pytest.mark.parametrize("task", [task for task in BUILT_IN if task != "segmentation"])
def test_vae_image_round_trip(task):
    label = np.stack([example(task, seed) for seed in range(3)])
    image = find_modality(task).to_image(label, Code(depth_scale=8.0))
    assert image.shape == (3, 3, *SIZE)
    assert image.dtype == torch.float32
    assert image.min() >= -1
    assert image.max() <= 1
    np.testing.assert_allclose(find_modality(task).from_image(image, Code(depth_scale=8.0)), label, atol=2e-6)


def test_vae_image_of_segmentation_round_trip():
    ids = np.arange(150, dtype=np.uint8).reshape(1, 10, 15)
    image = find_modality("segmentation").to_image(ids, Code(depth_scale=8.0, palette="default"))
    assert image.shape == (1, 3, 10, 15)
    back = find_modality("segmentation").from_image(image, Code(depth_scale=8.0, palette="default"))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, ids)
    nearby = (image + 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert (
        find_modality("segmentation").from_image(nearby, Code(depth_scale=8.0, palette="default")) == ids
    ).mean() > 0.9


def test_segmentation_decodes_among_the_classes_that_are_known():
    bed, window, third = 7, 8, 5
    colours = {
        id_: find_modality("segmentation").to_image(np.array([[[id_]]], np.uint8), Code(depth_scale=8.0))
        for id_ in (7, 8, 5)
    }
    between = 0.55 * colours[bed] + 0.45 * colours[window]
    assert find_modality("segmentation").from_image(between, Code(depth_scale=8.0)).item() not in (bed, window)
    known = {"classes": [bed, window]}
    assert find_modality("segmentation").from_image(between, Code(depth_scale=8.0), **known).item() == bed
    assert find_modality("segmentation").from_image(colours[third], Code(depth_scale=8.0), **known).item() in (
        bed,
        window,
    )


def test_vae_image_by_hand():
    depth = np.array([[[0.0, 2.0, 8.0, 80.0, np.inf]]], np.float32)
    image = find_modality("depth").to_image(depth, Code(depth_scale=8.0))
    # No surface (0) and beyond the scale are both as far as can be told.
    torch.testing.assert_close(image[0, :, 0], torch.tensor([1, -0.5, 1, 1, 1.0]).expand(3, 5))
    toward_viewer = np.array([[[[0, 0, 1.0]]]])
    assert find_modality("normal").to_image(toward_viewer, Code(depth_scale=8.0)).flatten().tolist() == [0, 0, 1]
    assert find_modality("shading").to_image(
        np.array([[[255]]], np.uint8), Code(depth_scale=8.0)
    ).flatten().tolist() == [1, 1, 1]


def test_depth_from_the_vae_is_the_channels_mean_in_metres():
    image = torch.tensor([0.5, 0.0, -0.5, 3.0]).view(1, 1, 1, 4).repeat(1, 3, 1, 1)
    image[:, 0] += 0.3
    image[:, 1] -= 0.3
    np.testing.assert_allclose(
        find_modality("depth").from_image(image, Code(depth_scale=8.0)), [[[6, 4, 2, 8]]], atol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 5))
def test_any_decoded_image_gives_valid_labels(seed, spread):
    image = spread * torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(seed))
    for task in ("normal", "depth", "albedo", "shading"):
        find_modality(task).encode(find_modality(task).from_image(image, Code(depth_scale=8.0))[0])
    lengths = np.linalg.norm(find_modality("normal").from_image(image, Code(depth_scale=8.0)), axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_unit_gives_no_direction_to_what_has_none():
    np.testing.assert_array_equal(unit(np.array([[0.0, 0.0, 0.1], [0.0, 3.0, 0.0]])), [[0, 0, 0], [0, 1, 0]])


def test_images_for_the_vae():
    image = np.array([[[[0, 255, 0]]]], np.uint8)
    assert image_to_vae(image).flatten().tolist() == [-1, 1, -1]
    with pytest.raises(InputError, match="images: expected uint8"):
        image_to_vae(image.astype(np.float32))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("task", BUILT_IN)
def test_decoded_images_that_are_not_finite_are_refused(task: str, value: float) -> None:
    """Clipping would hide an infinite value, and a comparison would hide NaN."""
    image = torch.zeros(3, 3, 4, 4)
    image[1, 2, 3, 3] = value
    with pytest.raises(NotFinite, match="sample 1 of the batch"):
        find_modality(task).from_image(image, Code(depth_scale=8.0))
