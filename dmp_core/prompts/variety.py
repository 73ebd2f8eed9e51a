"""What captions name of each trait that `prompts.vary` can weigh, read back from their words."""

from __future__ import annotations

import re
from functools import cache

from dmp_core.prompts.words import traits
from dmp_core.render import read_prompt

_SURROUNDINGS = {"wall", "floor", "ceiling", "sky"}
NUMBER = "objects"
"""The trait whose words are numbers of different objects."""


def traits_of(prompt: str, keyword: str) -> dict[str, list[str]]:
    """Trait → the words of it that a caption contains, each once, and under `objects` the number of different ones.

    Longer words are read first: `at golden hour` is a light and no colour. Objects are those that the renderer knows
    and that the keyword does not name, without walls, floors, ceilings and the sky.
    """
    words = {word.lower() for word in _any_word().findall(prompt)}
    named = {trait: [word for word in listed if word.lower() in words] for trait, listed in traits().items()}
    objects = _objects(prompt, keyword) - _objects(keyword, keyword) - _SURROUNDINGS
    return named | {NUMBER: [str(len(objects))]}


def _objects(text: str, keyword: str) -> set[str]:
    return {item.name for item in read_prompt(text, keyword).items}


@cache
def _any_word() -> re.Pattern[str]:
    listed = {word for trait, words in traits().items() if trait != NUMBER for word in words}
    longest_first = sorted(map(re.escape, listed), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])", re.IGNORECASE)
