"""Every hook of every modality, with labels of its own range: round trips, closed forms, and texts."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from dmp_core.modalities import BUILT_IN, Code, Modality, find_modality
from dmp_core.modalities.classes import ClassMap
from dmp_core.modalities.colour import VectorMap
from dmp_core.modalities.settings import ClassesModality, ColourModality, ScalarModality, VectorModality

OWN = {
    "roughness": ScalarModality(),
    "thermal": ScalarModality(range=(-20, 80), unit="°C"),
    "stain": ColourModality(),
    "bent": VectorModality(),
    "defects": ClassesModality(classes=["none", "scratch", "dent"], headline=["scratch", "dent"]),
    "parts": ClassesModality(classes=[f"part {number}" for number in range(1000)]),
}
ALL = {**{name: find_modality(name) for name in BUILT_IN}, **{name: find_modality(name, OWN[name]) for name in OWN}}
SIZE = (12, 16)
EXERCISED = {
    *{"encode", "decode", "codes", "from_codes", "stored", "unrepaired", "stored_values", "imported", "check_stored"},
    *{
        "checked",
        "valid",
        "resize",
        "mirror",
        "mirror_image",
        "channels_last",
        "image_channels_last",
        "turned",
        "truth",
    },
    *{
        "to_image",
        "from_image",
        "from_image_at",
        "classes_in",
        "encoding",
        "code_of",
        "primary_metric",
        "image_metric",
        "metric",
    },
    *{"tensor", "scores", "areas", "area_statistic", "scores_and_areas", "constant", "constant_like", "mean_map"},
    *{"quality", "flip_difference", "flip_score", "flip_unit", "colourise", "span", "error_map", "flat"},
    *{"card_section", "word", "picture_key"},
}


def labels(modality: Modality, count: int = 3, seed: int = 0) -> np.ndarray:
    """Random labels, one pixel of each without a value if the modality allows it."""
    random = np.random.default_rng(seed)
    if isinstance(modality, ClassMap):
        ids = random.integers(0, len(modality.classes), (count, *SIZE)).astype(modality.dtype)
        ids[:, 0, 0] = modality.ignored
        return ids
    if isinstance(modality, VectorMap):
        vectors = random.normal(size=(count, *SIZE, 3))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors[:, 0, 0] = 0
        return vectors.astype(np.float32)
    shape = (count, *SIZE, 3) if modality.channels == 3 else (count, *SIZE)
    low, high = (getattr(modality, end, default) for end, default in (("low", 0.0), ("high", 1.0)))
    low, high = (0.5, 7.5) if np.isinf(high) else (low, high)
    values = random.uniform(low, high, shape).astype(np.float32)
    if modality.member.endswith(".npy"):
        values[:, 0, 0] = np.inf
    return values


def hooks() -> set[str]:
    """Public methods and properties of the protocol."""
    return {
        name
        for name, value in inspect.getmembers(Modality)
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }


def test_every_hook_is_tested_here():
    assert hooks() == EXERCISED


@pytest.fixture(params=ALL)
def modality(request) -> Modality:
    return ALL[request.param]


def test_file_round_trip(modality):
    label = labels(modality)[0]
    data = modality.encode(label)
    assert data == modality.encode(label)
    back, known = modality.decode(data), modality.valid(label)
    assert np.array_equal(modality.valid(back), known)
    step = {"png": 1 / 255, "npy": 0.05}[modality.member[-3:]]
    if modality.has_classes:
        assert np.array_equal(back, label)
    else:
        assert np.abs(back[known] - label[known]).max() <= 3 * step
    modality.check_stored(data)
    assert np.array_equal(modality.imported(data, f".{modality.member[-3:]}")[known], back[known])
    assert modality.stored(data).shape == modality.unrepaired(back, data).shape == label.shape
    packed = modality.decode(modality.encode(modality.truth(label)))  # halves of vectors may round to the next code
    assert np.abs(packed[known].astype(float) - back[known]).max() <= 3 * step * (not modality.has_classes)
    assert modality.stored_values
    assert modality.member.startswith(modality.word)


def test_geometry(modality):
    batch = labels(modality)
    assert np.array_equal(modality.mirror(modality.mirror(batch)), batch)
    assert modality.valid(modality.mirror(batch))[0, 0, -1] == modality.valid(batch)[0, 0, 0]
    small = modality.resize(batch[0], (6, 8))
    assert small.shape[:2] == (6, 8)
    modality.checked(small)
    first = np.moveaxis(batch, -1, 1) if modality.channels == 3 else batch[:, None]
    assert np.array_equal(modality.channels_last(first), batch)
    assert np.array_equal(modality.image_channels_last(first[0]), batch[0])
    turned = modality.turned(modality.turned(batch, "opencv"), "opencv")
    assert np.array_equal(turned, batch)


def test_images_for_the_vae_and_back(modality):
    batch, code = labels(modality), Code()
    image = modality.to_image(batch, code)
    assert tuple(image.shape) == (3, 3, *SIZE)
    assert -1 <= image.min() <= image.max() <= 1
    back, known = modality.from_image(image, code, classes=modality.classes_in(batch)), modality.valid(batch)
    if modality.has_classes:
        assert np.array_equal(back[known], batch[known])
    else:
        assert np.allclose(back[known], batch[known], atol=1e-3)
    assert modality.from_image_at(image, (6, 8), code).shape[:3] == (3, 6, 8)
    mirrored = modality.to_image(modality.mirror(batch), code).numpy()
    shown = modality.mirror_image(np.moveaxis(image.numpy(), 1, -1))
    where = np.repeat(known[:, None], 3, axis=1)[..., ::-1]
    assert np.allclose(np.moveaxis(shown, -1, 1)[where], mirrored[where], atol=1e-6)
    stated = modality.code_of(modality.encoding(code))
    assert {name: getattr(code, name) for name in stated} == stated


def test_scores_of_the_truth_are_the_best_and_of_the_constant_are_not(modality):
    batch = labels(modality)
    best, areas = modality.scores_and_areas(batch, batch)
    constant = modality.constant(iter(batch))
    worse, other = modality.scores_and_areas(modality.constant_like(constant, batch), batch)
    assert set(best) == {metric.name for metric in modality.metrics if metric.level == "image"}
    metric = modality.image_metric
    assert all(metric.better(a, b) for a, b in zip(best[metric.name], worse[metric.name], strict=True))
    for name in (metric.name for metric in modality.metrics if metric.level == "dataset"):
        whole, weights = modality.metric(name), np.ones((1, len(batch)))
        assert areas is not None
        right, wrong = (modality.area_statistic(of, name)(weights)[0] for of in (areas, other))
        assert np.isnan(right) or right == 1
        assert np.isnan(wrong) or not whole.better(wrong, right)
    assert (modality.areas(batch, batch) is None) == (areas is None)
    assert modality.scores(batch, batch).keys() == best.keys()
    assert modality.primary_metric in modality.metrics


def test_the_mean_map_of_one_label_is_that_label(modality):
    label = labels(modality, 1)[0]
    collected = modality.mean_map()
    collected(label)
    found, known = collected.result(), modality.valid(label)
    assert np.allclose(found[known], label[known], atol=1e-6)


def test_quality_names_what_it_scores(modality):
    label, other = labels(modality)[0], labels(modality, seed=1)[0]
    found = modality.quality(label)
    assert found.keys() == modality.quality_scores.keys()
    assert all(isinstance(value, modality.quality_scores[name]) for name, value in found.items())
    agrees = 1.0 if modality.has_classes else 0.0
    assert modality.flip_difference(label, modality.mirror(label)) == pytest.approx(agrees, abs=1e-2)
    assert modality.flip_difference(label, modality.mirror(other)) != pytest.approx(agrees, abs=1e-2)
    assert modality.flip_score == f"flip_{modality.flip_unit}"


def test_renderings_and_texts(modality):
    label, other = labels(modality)[0], labels(modality, seed=1)[0]
    image = modality.colourise(label, span=modality.span([label, other]))
    assert (image.shape, image.dtype) == ((*SIZE, 3), np.uint8)
    error, known = modality.error_map(other, label), modality.valid(label) & modality.valid(other)
    assert error.shape == SIZE
    assert np.nanmax(error[known]) > 0
    assert np.allclose(modality.error_map(label, label)[known], 0, atol=1e-3)
    assert modality.flat == modality.has_classes
    assert (modality.card_section() != "") == modality.has_classes
    words = (modality.title, modality.short, modality.instruction, modality.card.meaning, modality.error_scale.label)
    assert all(words)
    assert (modality.picture_key != "") == isinstance(modality, VectorMap)


def test_tensors_are_channels_first():
    for name, modality in ALL.items():
        if not modality.has_classes:
            tensor = modality.tensor(labels(modality))
            assert (
                tuple(tensor.shape)
                == {3: (3, 3, *SIZE), 1: (3, *SIZE) if name == "depth" else (3, 1, *SIZE)}[modality.channels]
            )
