"""Scores compared with closed forms, and with the known scores of an image's copy."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.quality import (
    image_scores,
    label_scores,
    nearest,
    nearest_earlier,
    nearest_earlier_prompt,
    perceptual_hash,
)
from dmp_core.quality.labels import flip_difference
from tests.peak import peak_memory
from tests.report.rooms import blurred, room


def bits(a: np.ndarray, b: np.ndarray) -> int:
    first, second = perceptual_hash(a), perceptual_hash(b)
    assert first is not None
    assert second is not None
    return (first ^ second).bit_count()


def photo(seed: int) -> np.ndarray:
    """A smooth random image, (64, 64, 3), far from every bound of its codes."""
    noise = np.random.default_rng(seed).normal(0, 1, (64, 64, 3))
    smooth = blurred(noise, 40)
    return (128 + 40 * smooth / np.abs(smooth).max()).astype(np.uint8)


def jpeg(rgb: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))


# ---------------------------------------------------------------------------------------- images
@pytest.mark.parametrize("seed", range(8))
def test_copies_are_near_and_other_images_far(seed: int) -> None:
    image = photo(seed)
    assert bits(image, image.copy()) == 0
    assert bits(image, jpeg(image)) <= 4
    assert bits(image, image + 8) <= 2
    assert bits(image, np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BILINEAR))) <= 4
    # Unrelated hashes differ in 32 ± 4 bits.
    assert bits(image, photo(seed + 100)) > 16


def test_the_hash_reads_the_signs_of_the_spectrum() -> None:
    # One cosine of frequency (2, 3) at the hash's own 32 × 32 pixels: that bit and, above a median of about 0, half
    # of the rounding noise; its negative turns the bit round.
    position = (np.arange(32) + 0.5) * np.pi / 32
    wave = 60 * np.cos(2 * position)[:, None] * np.cos(3 * position)[None]
    hashes = [
        perceptual_hash(np.repeat((128 + sign * wave).round().astype(np.uint8)[..., None], 3, 2)) for sign in (1, -1)
    ]
    assert [h >> (63 - (2 * 8 + 3)) & 1 for h in hashes if h is not None] == [1, 0]


def test_blank_images_have_no_structure_to_compare() -> None:
    for level in (0, 77, 255):
        blank = np.full((20, 30, 3), level, np.uint8)
        scores = image_scores(blank)
        assert scores["phash"] is None
        assert (scores["mean"], scores["std"], scores["sharpness"]) == (level, 0, 0)
        assert scores["clipped"] == (level in (0, 255))


def test_brightness_contrast_clipping_and_sharpness_of_a_chequerboard() -> None:
    board = np.indices((8, 8)).sum(0) % 2
    rgb = np.repeat((board * 100 + 50).astype(np.uint8)[..., None], 3, axis=-1)
    scores = image_scores(rgb)
    assert scores["mean"] == 100
    assert scores["std"] == 50
    assert scores["clipped"] == 0
    # Four neighbours less four times the centre is ±400 everywhere.
    assert scores["sharpness"] == pytest.approx(400.0**2)
    rgb[:2] = (255, 0, 255)
    rgb[2] = (255, 0, 254)
    assert image_scores(rgb)["clipped"] == 2 / 8


# ------------------------------------------------------------------------------------ duplicates
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_nearest_hashes_are_those_of_a_plain_search(values: list[int], others: list[int]) -> None:
    distance, index = nearest_earlier(np.array(values, np.uint64))
    for row, value in enumerate(values):
        plain = [(value ^ other).bit_count() for other in values[:row]]
        assert (distance[row], index[row]) == ((min(plain), plain.index(min(plain))) if plain else (-1, -1))
    distance, index = nearest(np.array(values, np.uint64), np.array(others, np.uint64))
    for row, value in enumerate(values):
        plain = [(value ^ other).bit_count() for other in others]
        assert (distance[row], index[row]) == ((min(plain), plain.index(min(plain))) if plain else (-1, -1))


def test_nearest_hashes_across_blocks() -> None:
    values = np.random.default_rng(0).integers(0, 2**63, 700, dtype=np.uint64)
    values[650] = values[3] ^ np.uint64(0b101)
    distance, index = nearest_earlier(values)
    assert (distance[650], index[650]) == (2, 3)
    assert distance[0] == -1
    assert (index[1:] < np.arange(1, 700)).all()


def test_prompts_share_words() -> None:
    likeness, index = nearest_earlier_prompt(["A red bed.", "a blue chair", "the RED bed", "a red bed", ""])
    assert np.isnan(likeness[0])
    assert likeness[1:].tolist() == [1 / 5, 2 / 4, 1.0, 0.0]
    assert index[:4].tolist() == [-1, 0, 0, 0]


def test_nearest_prompts_are_those_of_a_plain_search() -> None:
    """Of more words than have a bit, of texts with none, and of one with so many that a byte cannot count them."""
    draw = random.Random(0)
    vocabulary = [f"w{number}" for number in range(150)]
    prompts = [" ".join(draw.choices(vocabulary, range(150, 0, -1), k=draw.randint(0, 12))) for _ in range(300)]
    longest = " ".join(f"x{number}" for number in range(400))
    for texts in (prompts, [*prompts[:50], longest, "", f"{longest} w1", "w1 w2"], ["one"], []):
        likeness, index = nearest_earlier_prompt(iter(texts))
        words = [set(text.split()) for text in texts]
        for row in range(1, len(texts)):
            alike = [len(words[row] & other) / max(len(words[row] | other), 1) for other in words[:row]]
            assert (likeness[row], index[row]) == (max(alike), alike.index(max(alike)))
        assert np.isnan(likeness[:1]).all()
        assert (index[:1] == -1).all()


def test_nearest_neighbours_take_little_memory() -> None:
    draw = random.Random(0)
    prompts = [" ".join(draw.choices([f"word{n}" for n in range(300)], k=16)) for _ in range(1000)]
    hashes = np.random.default_rng(0).integers(0, 2**63, 1000, dtype=np.uint64)
    assert peak_memory(lambda: nearest_earlier(hashes)) < 64 * 1000
    assert peak_memory(lambda: nearest_earlier_prompt(prompts)) < 800 * 1000


# ---------------------------------------------------------------------------------------- labels
def test_normals_that_face_away_or_are_not_unit() -> None:
    facing = np.zeros((6, 4, 3))
    facing[..., 2] = 1
    assert label_scores("normal", facing) == {"labelled": 1, "unit": 1, "normal_z": 1}
    assert label_scores("normal", -facing)["normal_z"] == -1
    tilted = np.stack([np.full((6, 4), value) for value in (0.6, 0.0, 0.8)], -1)
    assert label_scores("normal", tilted)["normal_z"] == pytest.approx(0.8)
    mixed = tilted.copy()
    mixed[0] = 0  # no surface
    mixed[1] *= 0.7  # too short
    scores = label_scores("normal", mixed)
    assert (scores["labelled"], scores["unit"]) == (5 / 6, 4 / 5)
    assert scores["normal_z"] == pytest.approx(0.8)
    assert label_scores("normal", facing * 0) == {"labelled": 0, "unit": None, "normal_z": None}


def test_a_room_seen_from_inside_faces_the_viewer() -> None:
    for seed in range(5):
        assert label_scores("normal", room(seed)["normal"])["normal_z"] > 0


def test_depth_that_is_positive_and_finite_counts() -> None:
    depth = np.array([[1.5, np.inf, np.nan, 0], [-1, 4, 2, 2]])
    assert label_scores("depth", depth) == {"labelled": 0.5, "near": 1.5, "far": 4}
    assert label_scores("depth", np.zeros((2, 4))) == {"labelled": 0, "near": None, "far": None}


def test_one_class_and_no_class() -> None:
    ids = np.array([[7, 7, 255], [7, 3, 255]], np.uint8)
    assert label_scores("segmentation", ids) == {"labelled": 4 / 6, "classes": 2, "class_share": 0.75}
    assert label_scores("segmentation", ids * 0 + 3) == {"labelled": 1, "classes": 1, "class_share": 1}
    assert label_scores("segmentation", ids * 0 + 255) == {"labelled": 0, "classes": 0, "class_share": None}


def test_constant_albedo_is_constant_whatever_its_colour() -> None:
    albedo = np.broadcast_to(np.array([0.2, 0.5, 1.0]), (5, 5, 3))
    scores = label_scores("albedo", albedo)
    assert scores["label_std"] == pytest.approx(0, abs=1e-12)
    assert scores["label_clipped"] == pytest.approx(1 / 3)
    shading = np.array([[0.25, 0.75]])
    assert label_scores("shading", shading) == {"label_mean": 0.5, "label_std": 0.25, "label_clipped": 0}


# ------------------------------------------------------------------------------- mirrored labels
@pytest.mark.parametrize(
    ("task", "unit", "same"),
    [
        ("normal", "degrees", 0),
        ("depth", "abs_rel", 0),
        ("segmentation", "agreement", 1),
        ("albedo", "mse", 0),
        ("shading", "mse", 0),
    ],
)
def test_a_consistent_labeler_predicts_the_same(task: str, unit: str, same: float) -> None:
    # Mirroring the world along x negates the x of normals and leaves every other label's values.
    label = find_modality(task).decode(find_modality(task).encode(room(1)[task]))
    mirrored = label[:, ::-1].copy()
    if task == "normal":
        mirrored[..., 0] *= -1
    assert flip_difference(task, label, mirrored) == {"value": same, "unit": unit}


def test_inconsistent_predictions_are_measured_in_the_tasks_unit() -> None:
    turned = np.zeros((4, 4, 3), np.float32)
    turned[...] = (np.sin(np.radians(15)), 0, np.cos(np.radians(15)))
    # A labeler that ignores the mirror answers +15° where -15° is right.
    assert flip_difference("normal", turned, turned)["value"] == pytest.approx(30, abs=1e-3)
    depth = np.full((4, 4), 2.0)
    assert flip_difference("depth", depth, depth * 1.25)["value"] == pytest.approx(0.25)
    half = np.array([[1, 2], [1, 2]], np.uint8)
    assert flip_difference("segmentation", half, half)["value"] == 0
    assert flip_difference("shading", depth / 4, depth / 8)["value"] == pytest.approx(0.25**2)
    assert flip_difference("depth", depth * 0, depth)["value"] is None


def test_every_task_is_scored() -> None:
    for task in BUILT_IN:
        assert label_scores(task, room(0)[task])
