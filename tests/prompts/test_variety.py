"""What captions name, read back from their words, against what the grammar was asked to draw."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.variety import traits_of
from dmp_core.prompts.vary import VaryConfig

KEYWORDS = ["bedroom", "kitchen", "street", "beach", "attic"]


def counted(trait: str, **weights: dict[str, float]) -> Counter[str]:
    grammar, vary = GrammarGenerator(), VaryConfig(**weights)
    captions = [(grammar.caption(word, random.Random(seed), vary), word) for word in KEYWORDS for seed in range(60)]
    return Counter(value for caption, word in captions for value in traits_of(caption, word)[trait])


def test_words_of_a_caption() -> None:
    assert traits_of("A Rustic bedroom with a red velvet couch at golden hour, light green walls", "bedroom") == {
        "colour": ["red", "light green"],
        "material": ["velvet"],
        "light": ["at golden hour"],
        "style": ["rustic"],
        "objects": ["1"],
    }


def test_words_are_whole_and_count_once() -> None:
    found = traits_of("a coloured red-hot stove, a tan lamp, a tan lamp and an off-white bed", "tangerine room")
    assert sorted(found["colour"]) == ["off-white", "tan"]
    assert traits_of("", "")["colour"] == []


@pytest.mark.parametrize("trait", ["colour", "material", "light", "style"])
def test_only_what_may_be_drawn_is_found(trait: str) -> None:
    word = {"colour": "turquoise", "material": "oak", "light": "at dusk", "style": "rustic"}[trait]
    found = counted(trait, **{trait: {word: 1, "other": 0}})
    assert found[word] > 20
    assert found.most_common(1)[0][0] == word
    assert len(counted(trait)) > 10 > len(found)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_number_of_objects_is_the_one_asked_for(number: int) -> None:
    found = counted("objects", objects={str(number): 1, "other": 0})
    assert found[str(number)] > 0.85 * found.total()
