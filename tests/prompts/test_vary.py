"""Weights of what captions draw: followed exactly at 0 and 1, in proportion between, and without effect when absent."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from dmp_core.config import load_config
from dmp_core.dataset.settings import SplitConfig
from dmp_core.errors import InputError
from dmp_core.prompts.base import fill_template
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.make import make_captions
from dmp_core.prompts.settings import GrammarPrompts, PromptsConfig, TransformersPrompts
from dmp_core.prompts.vary import VaryConfig
from dmp_core.prompts.words import traits, vocabulary_words
from dmp_core.stages import plan

KEYWORDS = ["bedroom", "kitchen", "street", "beach", "a painting of a quiet harbour", "moonlit garden", "attic"]
NO_COLOURS = {"golden", "sand"}
"""In captions also words of light (`at golden hour`) and objects."""


def captions(seeds: int = 60, **weights: dict[Any, float]) -> list[str]:
    grammar, vary = GrammarGenerator(), VaryConfig(**weights)
    return [grammar.caption(keyword, random.Random(seed), vary) for keyword in KEYWORDS for seed in range(seeds)]


def found(texts: list[str], words: list[str]) -> set[str]:
    return {word for word in words for text in texts if re.search(rf"(?<![\w-]){word}(?![\w-])", text, re.IGNORECASE)}


def test_absent_weights_change_nothing() -> None:
    grammar = GrammarGenerator()
    for keyword in KEYWORDS:
        for seed in range(50):
            plain = grammar.caption(keyword, random.Random(seed))
            assert grammar.caption(keyword, random.Random(seed), VaryConfig()) == plain
            assert grammar.details(keyword, random.Random(seed), VaryConfig()) == grammar.details(
                keyword, random.Random(seed)
            )


def test_the_only_colour_is_drawn_however_many_are_needed() -> None:
    texts = captions(colour={"turquoise": 2, "other": 0})
    assert found(texts, vocabulary_words("colours")) - NO_COLOURS == {"turquoise"}
    assert any(text.count("turquoise") > 2 for text in texts)


@pytest.mark.parametrize("trait", ["colour", "material", "light", "style"])
def test_a_word_of_weight_0_is_never_drawn_and_one_of_weight_is(trait: str) -> None:
    words = {"colour": "turquoise", "material": "wooden", "light": "at dusk", "style": "rustic"}
    word = words[trait]
    assert found(captions(), [word]) == {word}
    assert found(captions(**{trait: {word: 0}}), [word]) == set()
    often = captions(**{trait: {word: 1000}})
    assert sum(word in text for text in often) > 4 * sum(word in text for text in captions())


def test_draws_are_in_proportion() -> None:
    texts = captions(400, style={"rustic": 3, "modern": 1, "other": 0})
    counts = Counter(word for text in texts for word in ("rustic", "modern") if word in text.lower())
    assert counts["rustic"] / counts["modern"] == pytest.approx(3, rel=0.25)


def test_light_that_may_not_be_drawn_leaves_whole_sentences() -> None:
    for text in captions(light={"dim": 1, "other": 0}):
        assert text == text.strip(" ,")
        assert "  " not in text
        assert not found([text], [word for word in traits()["light"] if " " in word])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_number_of_objects_is_followed_by_requests(number: int) -> None:
    vary = VaryConfig(objects={number: 1, "other": 0})
    for seed in range(30):
        text = GrammarGenerator().details("bedroom", random.Random(seed), vary)
        assert 1 + text.count(" and ") + text.count(", ") == number


def test_captions_name_more_objects_if_asked() -> None:
    few, many = (sum(map(len, captions(objects={n: 1, "other": 0}))) for n in (1, 3))
    assert many > 1.3 * few


def test_the_request_to_a_language_model_carries_the_draw() -> None:
    vary = VaryConfig(colour={"teal": 1, "other": 0}, style={"retro": 1, "other": 0})
    request = fill_template("A {keyword} with {details}.", "bedroom", 5, vary)
    assert request.endswith(", retro style.")
    assert found([request], vocabulary_words("colours")) <= {"teal"} | NO_COLOURS
    language_model = TransformersPrompts(model="some/model")
    with pytest.raises(ValueError, match="only if template contains"):
        PromptsConfig(generator=language_model, vary=vary)
    assert PromptsConfig(generator=language_model, vary=vary, template="{keyword}: {details}").vary == vary


def test_a_split_follows_its_weights() -> None:
    config = PromptsConfig(generator=GrammarPrompts(), vary=VaryConfig(colour={"teal": 1, "other": 0}))
    made = make_captions("train", SplitConfig(keywords=["bedroom", "attic"], count=40), config, 0)
    texts = made.table["prompt"].tolist()
    assert found(texts, vocabulary_words("colours")) - NO_COLOURS == {"teal"}
    assert len(set(texts)) == 40


def test_only_configurations_with_weights_have_other_fingerprints() -> None:
    def known(*overrides: str) -> dict[str, str]:
        return {node.id: node.fingerprint for node in plan(load_config("smoke", None, list(overrides)))}

    assert known("prompts.vary=null") == known()
    assert known("prompts.vary={objects: {1: 2}}")["prompts/train"] != known()["prompts/train"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("prompts.vary={colour: {rad: 1}}", "did you mean red"),
        ("prompts.vary={objects: {4: 1}}", "choose among 1, 2, 3 and other"),
        ("prompts.vary={style: {other: 0}}", "every weight is 0"),
        ("prompts.vary={light: {dim: -1}}", "greater than or equal to 0"),
        ("prompts.vary={light: {dim: .nan}}", "finite"),
        ("prompts.vary={texture: {}}", "texture"),
    ],
)
def test_unusable_weights_are_input_errors(setting: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_config("smoke", None, [setting])
