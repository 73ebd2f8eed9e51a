"""Captions from the grammar: about the keyword, varied, and made of the renderer's words."""

from __future__ import annotations

import random
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.keywords.english import plural
from dmp_core.keywords.meaning import meaning_of
from dmp_core.prompts import clean_caption, grammar, read_keywords, readable_keyword
from dmp_core.prompts import words as drawn
from dmp_core.prompts.grammar import GrammarGenerator, with_article
from dmp_core.resources import manifest_path

VOCABULARY = yaml.safe_load(manifest_path("vocabulary.yaml").read_text())
OBJECT_WORDS = {name: [name, *entry["synonyms"]] for name, entry in VOCABULARY["objects"].items()}
ALL_KEYWORDS = [
    keyword for name in ("sun_indoor_409.txt", "arbitrary.txt", "styles.txt") for keyword in read_keywords(name)
]


@pytest.fixture(scope="module")
def generator() -> GrammarGenerator:
    return GrammarGenerator()


def mentions(text: str, words: list[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}(s|es)?\b", text.lower()) for word in words)


@given(st.sampled_from(ALL_KEYWORDS), st.integers(0, 2**63 - 1))
def test_every_caption_is_clean_short_and_about_its_keyword(keyword: str, seed: int) -> None:
    caption = GrammarGenerator().caption(keyword, random.Random(seed))
    assert len(caption) <= 150
    assert clean_caption(caption) == (caption, "")
    assert readable_keyword(keyword).lower() in caption.lower()
    assert caption == GrammarGenerator().generate([keyword], "ignored", [seed])[0]


def test_captions_name_colours_and_objects_that_the_renderer_knows(generator: GrammarGenerator) -> None:
    captions = [generator.caption("bedroom", random.Random(seed)) for seed in range(300)]
    coloured = sum(mentions(caption, list(VOCABULARY["colours"])) for caption in captions)
    furnished = sum(mentions(caption, OBJECT_WORDS["bed"]) for caption in captions)
    assert coloured > 0.85 * len(captions)
    assert furnished > 0.95 * len(captions)
    assert len(set(captions)) == len(captions)
    openings = {" ".join(caption.split()[:2]) for caption in captions}
    assert len(openings) > 50


def test_a_family_is_furnished_with_its_own_objects(generator: GrammarGenerator) -> None:
    captions = [generator.caption("restaurant_kitchen", random.Random(seed)) for seed in range(100)]
    assert all(mentions(caption, OBJECT_WORDS["counter"]) for caption in captions)
    assert not any(mentions(caption, ["bed", "bathtub", "tree"]) for caption in captions)


def test_words_of_the_grammar_are_words_of_the_renderer() -> None:
    materials = {word for words in (*drawn.MATERIALS.values(), *drawn.SURFACES.values()) for word in words}
    assert {word.lower() for word in materials} <= set(VOCABULARY["materials"])
    assert {word for words in grammar._NATURAL_COLOURS.values() for word in words} <= set(VOCABULARY["colours"])
    assert {word.lower() for word in drawn.DECOR} <= set(VOCABULARY["decor"])
    assert set(grammar._SIZES) <= set(VOCABULARY["sizes"])
    assert set(drawn.LIGHT_ADJECTIVES) <= set(VOCABULARY["light"])
    assert all(mentions(phrase, list(VOCABULARY["light"])) for phrase in drawn.LIGHT_PHRASES)
    for name, others in grammar._OTHER_NAMES.items():
        assert all(mentions(other, OBJECT_WORDS[name]) for other in others), name
    objects = {name for family in VOCABULARY["families"].values() for name in [*family["objects"], family["main"]]}
    tables = {*drawn.MATERIALS, *grammar._NATURAL_COLOURS, *grammar._UNCOUNTABLE, *grammar._SINGLE}
    assert tables <= objects | set(VOCABULARY["objects"])


@pytest.mark.parametrize(
    ("keyword", "family"),
    [
        ("bedroom", "bedroom"),
        ("bakery/shop", "shop"),
        ("kitchen for giants", "kitchen"),
        ("a watercolour painting of a living room", "living_room"),
        ("a cyberpunk street at night, neon", "street"),
    ],
)
def test_family_of_a_keyword(keyword: str, family: str) -> None:
    assert meaning_of(keyword).family.name == family


def test_a_light_in_the_keyword_is_not_contradicted(generator: GrammarGenerator) -> None:
    for seed in range(100):
        caption = generator.caption("a street at night, neon", random.Random(seed))
        assert not mentions(caption, ["daylight", "sunset", "morning", "afternoon", "sunny"])


def test_articles_and_plurals() -> None:
    assert [with_article(word) for word in ("oak desk", "red bed", "utility room", "bleachers", "glass")] == [
        "an oak desk",
        "a red bed",
        "a utility room",
        "bleachers",
        "a glass",
    ]
    assert [plural(word) for word in ("red lamp", "shelf", "bench", "box", "person")] == [
        "red lamps",
        "shelves",
        "benches",
        "boxes",
        "people",
    ]
