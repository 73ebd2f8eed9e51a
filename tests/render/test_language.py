"""Words -> wishes: colours, counts, materials, light, style, family."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dmp_core.keywords.meaning import families, meaning_of
from dmp_core.render import read_prompt
from dmp_core.render.makers import MAKERS
from dmp_core.render.vocabulary import vocabulary
from dmp_core.resources import ade20k_classes, manifest_path


def _colour(name: str) -> tuple[float, float, float]:
    return vocabulary().colours[name]


def _sun_names() -> list[str]:
    lines = manifest_path("keywords", "sun_indoor_409.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_colour_binds_to_the_noun_that_follows() -> None:
    spec = read_prompt("a bedroom with a red bed, a navy velvet sofa and green curtains", "bedroom")
    assert spec.find("bed").colour == _colour("red")
    assert spec.find("sofa").colour == _colour("navy")
    assert spec.find("sofa").material == "velvet"
    assert spec.find("curtain").colour == _colour("green")


def test_longest_colour_name_wins() -> None:
    assert read_prompt("a light blue wall", "bedroom").find("wall").colour == _colour("light blue")


@pytest.mark.parametrize("words", ["walls painted light blue", "the walls are light blue", "light blue walls"])
def test_colour_after_a_linking_word(words: str) -> None:
    assert read_prompt(f"a bedroom, {words}", "bedroom").find("wall").colour == _colour("light blue")


def test_room_colour_paints_the_walls() -> None:
    assert read_prompt("a pink bedroom", "bedroom").find("wall").colour == _colour("pink")


@pytest.mark.parametrize(
    ("words", "count"),
    [("two pillows", 2), ("a pair of pillows", 2), ("three white pillows", 3), ("4 pillows", 4), ("a pillow", 1),
     ("no pillows", 0), ("pillows", None)],
)  # fmt: skip
def test_counts(words: str, count: int | None) -> None:
    assert read_prompt(f"a bed with {words}", "bedroom").find("pillow").count == count


def test_two_colours_alternate() -> None:
    assert read_prompt("red and blue cushions", "bedroom").find("cushion").colours == (_colour("red"), _colour("blue"))


def test_definite_article_names_the_same_thing_again() -> None:
    spec = read_prompt("a wooden table, a vase on the table", "dining_room")
    assert [i.name for i in spec.items] == ["table", "vase"]


def test_materials_and_implied_surfaces() -> None:
    spec = read_prompt("a room with a grey carpet", "bedroom")
    assert spec.find("floor").material == "carpet"
    assert spec.find("floor").colour == _colour("grey")
    assert read_prompt("a glass table", "office").find("table").material == "glass"
    assert read_prompt("two sand flowers", "office").find("flower").colour == _colour("sand")


@pytest.mark.parametrize(
    ("prompt", "light"),
    [("a sunny bedroom", "day"), ("a bedroom at night", "night"), ("a dark blue bed", None), ("a dark oak bed", None),
     ("in warm light", "warm"), ("lit by candlelight", "candle")],
)  # fmt: skip
def test_light_words(prompt: str, light: str | None) -> None:
    assert read_prompt(prompt, "bedroom").light == light


@pytest.mark.parametrize(
    ("prompt", "style"),
    [("a watercolour painting of a bedroom", "watercolour"), ("a cyberpunk street in tokyo", "neon"),
     ("a bedroom with a painting", None), ("a bedroom with pastel walls", None)],
)  # fmt: skip
def test_styles(prompt: str, style: str | None) -> None:
    assert read_prompt(prompt, prompt).style == style


def test_place_names_are_not_things() -> None:
    assert read_prompt("a food court with a red table", "food_court").find("food") is None


def test_every_sun_name_has_a_family_by_its_own_entry() -> None:
    listed = [k for f in vocabulary().families.values() for k in f.keywords]
    names = _sun_names()
    assert len(names) == 409
    assert sorted(listed) == sorted(names)  # once each
    assert {meaning_of(n).family.name for n in names} <= set(families())
    assert len({meaning_of(n).family.name for n in names}) >= 8


@pytest.mark.parametrize(
    ("text", "family"),
    [("bedroom", "bedroom"), ("hotel_room", "bedroom"), ("kitchen", "kitchen"), ("cathedral/indoor", "hall"),
     ("a quiet street in paris", "street"), ("a sandy beach with palms", "coast"), ("a cat in a kitchen", "kitchen"),
     ("an abstract still life", "still_life"), ("a sketch of a castle", "street")],
)  # fmt: skip
def test_families(text: str, family: str) -> None:
    assert meaning_of(text).family.name == family


@given(st.text(max_size=80), st.text(max_size=30))
@example("²", "²")
@example("\ud800 two beds", "\ud800")
@example("9" * 5000 + " beds", "bedroom")
def test_no_text_fails(prompt: str, keyword: str) -> None:
    assert read_prompt(prompt, keyword).family in families()


def test_vocabulary_is_consistent() -> None:
    v, names = vocabulary(), ade20k_classes()
    assert len(names) == 150
    assert (names[0], names[3], names[5], names[7], names[8], names[149]) == (
        "wall", "floor", "ceiling", "bed", "windowpane", "flag",
    )  # fmt: skip
    special = {"window", "nightstand", "dresser", "television", "whiteboard", "ladder"}
    assert {o for o, i in v.objects.items() if names[i] != o} == special
    assert all(o in v.objects for f in v.families.values() for o in f.objects)
    assert set(MAKERS) <= set(v.objects)
