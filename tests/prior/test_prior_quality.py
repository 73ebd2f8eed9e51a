"""The measure of a prior: distances in closed form, planted copies, a judge of the captions' traits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmp_core.errors import InputError
from dmp_core.prior.config import JudgeConfig, PriorConfig
from dmp_core.prior.data import Renders, draw_scene, load_renders, save_shard
from dmp_core.prior.distances import frechet, nearest, nearness, perceptual, psnr, ssim
from dmp_core.prior.judge import Judge, accuracies, batches, embed, train_judge
from dmp_core.prior.quality import labels_of, neighbour_grid, sample_prompts
from dmp_core.prior.traits import COLOURS, PLACES, UNSAID, majority_share, traits
from dmp_core.render import configure_threads, render_prompt
from dmp_core.render.vocabulary import class_id, normalise, vocabulary


def noise(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------ traits
def test_every_family_and_every_colour_has_its_place():
    assert sorted(family for families in PLACES.values() for family in families) == sorted(vocabulary().families)
    named = [normalise(name) for names in COLOURS.values() for name in names.split(", ")]
    assert sorted(named) == sorted(vocabulary().colours)


@pytest.mark.parametrize(
    ("caption", "keyword", "place", "bed", "wall"),
    [
        ("A bedroom with a navy bed and pink walls", "bedroom", "bedroom", "blue", "pink"),
        ("A bedroom with two oak chairs", "bedroom", "bedroom", None, None),
        ("Cozy hospital ward with a crimson bed", "hospital_ward", "bedroom", "red", None),
        ("A pub/indoor with beige walls and a bar", "pub/indoor", "dining room", None, "brown"),
        ("A beach with palm trees", "a beach with palm trees", "landscape", None, None),
        ("A pencil drawing of a bedroom with a red bed", "a pencil drawing of a bedroom", "bedroom", None, None),
    ],
)
def test_traits_are_those_of_the_caption(caption, keyword, place, bed, wall):
    found = traits(caption, keyword)
    assert list(PLACES)[found["place"]] == place
    for name, colour in (("bed colour", bed), ("wall colour", wall)):
        assert found[name] == (UNSAID if colour is None else list(COLOURS).index(colour))


def test_chance_is_the_share_of_the_most_frequent_value():
    labels = {"place": np.array([1, 1, 1, 0]), "bed colour": np.array([UNSAID, 2, 3, 3]), "wall colour": [UNSAID] * 4}
    assert majority_share({k: np.array(v) for k, v in labels.items()}) == {
        "place": 0.75,
        "bed colour": pytest.approx(2 / 3),
        "wall colour": None,
    }


# --------------------------------------------------------------------------------- distances
def test_psnr_and_ssim_in_closed_form():
    images = np.full((2, 16, 16, 3), 100, dtype=np.uint8)
    assert psnr(images, images + np.uint8(51)) == pytest.approx(-20 * np.log10(0.2))  # an error of 51 / 255
    assert ssim(images, images) == pytest.approx(1.0)
    # For two flat images only the term of means is left: (2 a b + c) / (a² + b² + c) with c = 0.01².
    a, b, c = 100 / 255, 151 / 255, 1e-4
    assert ssim(images, images + np.uint8(51)) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-3)


def test_frechet_of_two_gaussians_in_closed_form():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((4000, 3))
    points = (points - points.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T))).T  # N(0, 1) exactly
    deviations, shift = np.array([1.0, 2.0, 0.5]), np.array([1.0, -2.0, 0.0])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    first, second = points @ turn, (points * deviations + shift) @ turn  # |shift|² + Σ (1 - deviation)²
    assert frechet(first, second) == pytest.approx(5.0 + 1.25, rel=1e-6)
    assert frechet(second, second) == pytest.approx(0.0, abs=1e-6)


def test_nearest_neighbours_find_planted_copies():
    rng = np.random.default_rng(1)
    training, fresh = rng.standard_normal((200, 8)), rng.standard_normal((50, 8))
    copied = rng.permutation(200)[:50]
    distances, indices = nearest(training[copied], training, 3)
    assert np.array_equal(indices[:, 0], copied)
    assert np.all(distances[:, 0] == 0)
    assert np.all(np.diff(distances, axis=1) > 0)
    by_hand = np.sort(np.linalg.norm(fresh[7] - training, axis=1))[:3]
    assert nearest(fresh, training, 3)[0][7] == pytest.approx(by_hand)


def test_a_prior_that_copies_is_detected():
    rng = np.random.default_rng(2)
    training, held_out, samples = (rng.standard_normal((n, 8)) for n in (300, 60, 60))
    assert nearness(training[:60] + 1e-6, held_out, training) < 1e-4
    assert nearness(samples, held_out, training) == pytest.approx(1.0, abs=0.15)
    assert nearness(5 * samples, held_out, training) > 3


def test_neighbour_grid_shows_the_closest_samples_first():
    training, samples = noise(9), noise(5, seed=1)
    samples[3] = training[4]
    known, painted = (images.reshape(len(images), -1) / 255.0 for images in (training, samples))
    image = np.asarray(neighbour_grid(samples, training, painted, known, count=4))
    assert image.shape == (2 * 32, 8 * 32, 3)
    assert np.array_equal(image[:32, :32], samples[3])
    assert np.array_equal(image[:32, 32:64], training[4])


# ------------------------------------------------------------------------------------- judge
def test_perceptual_distance_grows_with_the_difference():
    judge = Judge(JudgeConfig()).eval()
    images, other = noise(3), noise(3, seed=1)
    slight = (images + 0.1 * (other.astype(float) - images)).round().astype(np.uint8)
    distances = [perceptual(judge, images, changed) for changed in (images, slight, other)]
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]


@pytest.fixture(scope="module")
def renders() -> Renders:
    """36 small renders: beaches, and bedrooms with red or blue walls."""
    configure_threads(1)
    prompts = [
        ("A beach with palms", "a beach"),
        ("A bedroom with red walls", "bedroom"),
        ("A bedroom with royal blue walls", "bedroom"),
    ] * 12
    made = [
        render_prompt(caption, keyword, seed, resolution=32, samples_per_pixel=1, max_depth=2)
        for seed, (caption, keyword) in enumerate(prompts)
    ]
    ids = np.stack([one.segmentation for one in made]).astype(np.uint8)
    return Renders(np.stack([one.rgb for one in made]), *map(list, zip(*prompts, strict=True)), ids)


def part(renders: Renders, which: slice) -> Renders:
    return Renders(*(getattr(renders, name)[which] for name in ("rgb", "captions", "keywords", "segmentation")))


SMALL = JudgeConfig(
    steps=200, batch_size=12, learning_rate=5e-3, warmup_steps=5, ema_decay=0.9, widths=[8, 16, 16, 32], features=16
)


def trained(renders: Renders, config: JudgeConfig = SMALL, workers: int = 1) -> Judge:
    return train_judge(config, renders, labels_of(renders.captions, renders.keywords), workers)


@pytest.fixture(scope="module")
def judge(renders) -> Judge:
    return trained(part(renders, slice(0, 24)))


def test_judge_recognises_the_captions_traits(judge, renders):
    new = part(renders, slice(24, 36))
    wanted = labels_of(new.captions, new.keywords)
    seen, chance = accuracies(judge, new.rgb, wanted), majority_share(wanted)
    assert seen["place"] > chance["place"] + 0.2
    assert seen["wall colour"] > chance["wall colour"] + 0.2
    assert seen["bed colour"] is None  # no caption states one
    assert embed(judge, new.rgb).shape == (12, 16)


def test_attention_is_on_the_object(judge, renders):
    """More of its weight lies on walls than the walls' share of the image."""
    new = part(renders, slice(24, 36))
    _, weights = judge(next(batches(new.rgb)))
    walls = torch.from_numpy(new.segmentation == class_id("wall")).float().reshape(12, 8, 4, 8, 4).mean((2, 4))
    indoors = walls.sum((1, 2)) > 0
    on_walls = (weights["wall colour"].exp() * walls.flatten(1)).sum(1)
    assert on_walls[indoors].mean() > walls[indoors].mean() + 0.1


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_renders_give_the_same_judge(renders, workers):
    config = SMALL.model_copy(update={"steps": 3})
    first, second = (embed(trained(renders, config, workers), renders.rgb) for _ in range(2))
    assert np.array_equal(first, second)


# ---------------------------------------------------------------------------------- captions
def test_prompts_of_samples_are_of_no_training_scene(tmp_path, renders):
    """Held-out scenes first, then scenes after the recipe's last."""
    scenes = {"scenes": 6, "sources": {"bedrooms": {"keywords": ["bedroom"], "share": 1.0}}, "resolution": 32}
    recipe = PriorConfig.model_validate(
        {"scenes": scenes | {"hold_out_every": 3, "scenes_per_shard": 3}, "quality": {"samples": 5}}
    )
    drawn = [draw_scene(recipe.scenes, index) for index in range(9)]
    for start in (0, 3):
        chosen = slice(start, start + 3)
        captions = [caption for caption, _, _ in drawn[chosen]]
        columns = {"rgb": renders.rgb[chosen], "segmentation": renders.segmentation[chosen], "captions": captions}
        save_shard(tmp_path / f"scenes-{start:06d}.npz", columns)
    held_out = load_renders(recipe.scenes, tmp_path, held_out=True)
    assert np.array_equal(held_out.rgb, renders.rgb[[0, 3]])
    assert load_renders(recipe.scenes, tmp_path, held_out=False).captions == [drawn[i][0] for i in (1, 2, 4, 5)]
    assert sample_prompts(recipe, held_out)[0] == [drawn[index][0] for index in (0, 3, 6, 7, 8)]
    other = recipe.scenes.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match=r"scene 0 is .* give the recipe \(scenes.seed, scenes.sources\)"):
        load_renders(other, tmp_path, held_out=True)
