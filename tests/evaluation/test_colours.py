"""Colour codes of classes: shipped palettes, encoding and decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.errors import InputError
from dmp_core.evaluation.colours import (
    DMP_CLASSES,
    IGNORED,
    Palette,
    load_palette,
    read_palette,
    spread_colours,
)
from dmp_core.resources import manifest_path

CLASSES = tuple(manifest_path("ade20k_classes.txt").read_text().splitlines()[:150])


# ADE20K ids by their share of the pixels of rendered bedrooms, then of other rooms: wall, floor, ceiling, bed …
COMMON_CLASSES = (
    *(0, 3, 5, 7, 28, 8, 35, 15, 18, 22, 14, 82, 57, 44, 19, 10, 24, 33, 36, 17),
    *(131, 30, 27, 23, 39, 41, 62, 42, 85, 63, 64, 66, 69, 31),
)


def separation(colours: np.ndarray) -> float:
    points = colours.astype(np.float64)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return float(distances[~np.eye(len(points), dtype=bool)].min())


# ------------------------------------------------------------------------------------- shipped
@pytest.mark.parametrize("name", ["default", "dmp2", "ade20k"])
def test_shipped_palettes(name: str) -> None:
    palette = load_palette(name)
    assert palette.name == name
    assert palette.colours.shape == (150, 3)
    assert palette.colours.dtype == np.uint8
    assert palette.classes == tuple(name.strip() for name in CLASSES)


def test_default_palette_is_what_its_rule_makes() -> None:
    """The best separated colours for the commonest classes, the rest by id."""
    order = [*COMMON_CLASSES, *(i for i in range(150) if i not in COMMON_CLASSES)]
    assert np.array_equal(load_palette("default").colours[order], spread_colours(150))


@pytest.mark.parametrize("space", ["rgb", "lab8"])
def test_default_palette_is_decodable(space: str) -> None:
    palette = load_palette("default")
    assert palette.decode(palette.colours, space=space).tolist() == list(range(150))


def test_common_classes_are_farthest_apart() -> None:
    """From each other and from black, which marks pixels without a label."""
    colours = load_palette("default").colours
    black = np.zeros((1, 3), dtype=np.uint8)
    assert len(set(COMMON_CLASSES)) == len(COMMON_CLASSES) == 34
    assert separation(np.concatenate([black, colours[list(COMMON_CLASSES[:26])]])) >= 127
    assert separation(np.concatenate([black, colours[list(COMMON_CLASSES)]])) >= 109
    assert separation(np.concatenate([black, colours])) >= 55


@given(st.integers(1, 188))
def test_spread_colours_nest(count: int) -> None:
    assert np.array_equal(spread_colours(count), spread_colours(188)[:count])


def test_too_many_colours() -> None:
    with pytest.raises(InputError, match="count: 189 colours; at most 188 are well separated"):
        spread_colours(189)


# ----------------------------------------------------------------------------- round trip
@given(st.integers(0, 2**31), st.integers(0, 27))
def test_round_trip_survives_noise(seed: int, noise: int) -> None:
    """A colour may be off by up to half the smallest distance, 55 / 2."""
    rng = np.random.default_rng(seed)
    palette, ids = load_palette("default"), rng.integers(0, 150, (5, 7))
    shift = rng.normal(size=(5, 7, 3))
    shift *= noise / np.maximum(np.linalg.norm(shift, axis=-1, keepdims=True), 1e-9)
    noisy = (palette.encode(ids) + np.trunc(shift)).clip(0, 255).astype(np.uint8)
    assert np.array_equal(palette.decode(noisy), ids)


def test_no_label_is_black() -> None:
    rgb = load_palette("default").encode(np.array([[IGNORED, 0]], dtype=np.uint8))
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[0, 1].tolist() == load_palette("default").colours[0].tolist()


def test_decoding_among_some_classes() -> None:
    palette = load_palette("default")
    rgb = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    decoded = palette.decode(rgb, classes=[8, 3, 7])
    assert set(np.unique(decoded)) <= {3, 7, 8}
    kept = np.linalg.norm(rgb[..., None, :].astype(float) - palette.colours[[3, 7, 8]], axis=-1)
    assert np.array_equal(decoded, np.array([3, 7, 8])[kept.argmin(-1)])


def test_decoding_is_the_nearest_colour_first_on_a_tie() -> None:
    palette = Palette("three", np.array([[0, 0, 0], [200, 0, 0], [0, 0, 0]], dtype=np.uint8))
    rgb = np.array([[0, 0, 0], [100, 0, 0], [101, 0, 0]], dtype=np.uint8)
    assert palette.decode(rgb).tolist() == [0, 0, 1]
    assert palette.decode(palette.colours).tolist() == [0, 1, 0]
    assert palette.decode(np.empty((0, 4, 3), dtype=np.uint8)).shape == (0, 4)


def test_published_filter_makes_the_others_black() -> None:
    """Under `dmp_compat` an excluded class can still be predicted; with `classes` it cannot."""
    palette = load_palette("dmp2")
    black = np.zeros((1, 3), dtype=np.uint8)
    assert palette.others_black().decode(black, space="lab8")[0] not in DMP_CLASSES
    assert palette.decode(black, DMP_CLASSES, space="lab8")[0] in DMP_CLASSES
    assert np.array_equal(palette.others_black().colours[list(DMP_CLASSES)], palette.colours[list(DMP_CLASSES)])


# -------------------------------------------------------------------------------------- errors
def test_input_is_checked() -> None:
    palette = load_palette("default")
    with pytest.raises(InputError, match=r"ids: 150 has no colour in palette 'default'; expected 0 … 149, or 255"):
        palette.encode(np.array([0, 150]))
    with pytest.raises(InputError, match="ids: float64; expected integer"):
        palette.encode(np.array([0.0]))
    with pytest.raises(InputError, match=r"rgb: float32 \(2, 3\); expected uint8"):
        palette.decode(np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(InputError, match=r"space: 'hsv'; choose 'rgb' or 'lab8'"):
        palette.decode(np.zeros((2, 3), dtype=np.uint8), space="hsv")
    for wrong in ([], [150], [-1]):
        with pytest.raises(InputError, match=r"classes: .*give ids within 0 … 149"):
            palette.decode(np.zeros((2, 3), dtype=np.uint8), classes=wrong)


def test_likeliest_class_between_two_colours_changes_where_bayes_says() -> None:
    """On the way from one colour to the other, d apart, at d/2 + σ² ln(p/q) / d: the frequent class reaches further."""
    palette = Palette("two", np.array([[0, 0, 0], [200, 0, 0]], dtype=np.uint8))
    line = np.zeros((201, 3), dtype=np.uint8)
    line[:, 0] = np.arange(201)
    for share, noise in [(0.4, 0.2), (0.9, 0.2), (0.99, 0.2), (0.9, 0.05), (0.1, 0.2)]:
        turn = 100 + (255 * noise) ** 2 * np.log(share / (1 - share)) / 200
        found = palette.likeliest(line, {0: share, 1: 1 - share}, noise)
        assert np.array_equal(found, line[:, 0] > turn), (share, noise)


def test_equally_frequent_classes_are_decoded_by_the_nearest_colour() -> None:
    palette, rgb = load_palette(), np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    kept = [0, 3, 36, 57]
    found = palette.likeliest(rgb, dict.fromkeys(kept, 0.25), 0.15)
    assert found.shape == (5, 7)
    assert np.array_equal(found, palette.decode(rgb, kept))
    with pytest.raises(InputError, match="classes: "):
        palette.likeliest(rgb, {150: 1.0}, 0.15)


def test_unknown_palette_lists_the_known() -> None:
    with pytest.raises(InputError, match="palette: 'nyu' does not exist; choose ade20k, default, dmp2"):
        load_palette("nyu")
    with pytest.raises(InputError, match=r"missing\.csv: no such palette"):
        load_palette("missing.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,class,r,g,b\n0,wall,1,2,3\n2,sky,1,2,3\n", r"row 3: expected id 1"),
        ("id,class,r,g,b\n0,wall,1,2,300\n", r"row 2: expected id 0 and colours in 0 … 255"),
        ("id,class,r,g,b\n0,wall,1,2,red\n", r"row 2: expected the columns id, class, r, g, b"),
        ("number,r,g,b\n0,1,2,3\n", r"row 2: expected the columns"),
        ("id,class,r,g,b\n", r"0 classes; expected 1 to 255"),
    ],
)
def test_palette_files_are_checked(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"own\.csv.*{message}"):
        read_palette(file)


def test_own_palette(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("id,class,r,g,b\n0,wall,255,255,255\n1,floor,255,0,0\n")
    palette = load_palette(str(file))
    assert (palette.name, palette.classes) == ("own", ("wall", "floor"))
    assert palette.decode(palette.encode(np.array([1, 0, 1]))).tolist() == [1, 0, 1]
