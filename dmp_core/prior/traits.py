"""What a caption states that its image must show: the kind of place, and two colours. The labels of `judge.py`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dmp_core.render.language import Item, read_prompt
from dmp_core.render.vocabulary import RGB, normalise, vocabulary

UNSAID = -1
"""The label of a trait that the caption does not state."""

PLACES: dict[str, tuple[str, ...]] = {
    "bedroom": ("bedroom", "hospital"),
    "living room": ("living_room",),
    "kitchen": ("kitchen",),
    "bathroom": ("bathroom",),
    "office": ("office", "classroom"),
    "dining room": ("dining_room", "bar"),
    "corridor": ("corridor", "staircase"),
    "shop": ("shop", "library"),
    "hall": ("hall", "lobby"),
    "workshop": ("workshop", "laboratory", "cellar"),
    "gym": ("gym", "pool"),
    "vehicle": ("vehicle",),
    "street": ("street",),
    "landscape": ("park", "coast", "mountains"),
    "still life": ("still_life",),
}
"""The renderer's families, merged where furnished alike or too rare to be learnt separately."""

COLOURS: dict[str, str] = {
    "white": "white, off-white, ivory, cream",
    "grey": "grey, gray, light grey, light gray, dark grey, dark gray, silver",
    "black": "black, charcoal",
    "brown": "brown, dark brown, chocolate, beige, sand, tan",
    "red": "red, dark red, crimson, burgundy, maroon, scarlet",
    "orange": "orange, terracotta, rust, peach, coral, salmon",
    "yellow": "yellow, pale yellow, mustard, gold, golden",
    "green": "green, light green, dark green, sage, olive, lime, mint, emerald",
    "blue": "blue, light blue, pale blue, sky blue, dark blue, navy, royal blue, teal, turquoise, aqua, cyan",
    "purple": "purple, indigo, violet, lavender, lilac, plum, magenta",
    "pink": "pink, light pink, hot pink, rose",
}
"""The eleven basic colour terms (Berlin and Kay, 1969), and the vocabulary's colours that each includes."""

COLOURED = {"bed colour": "bed", "wall colour": "wall"}
"""The object of each colour trait, by the vocabulary's name."""

TRAITS: dict[str, tuple[str, ...]] = {"place": tuple(PLACES)} | {name: tuple(COLOURS) for name in COLOURED}
"""Name and values of each trait."""


def traits(caption: str, keyword: str) -> dict[str, int]:
    """Index into TRAITS' values by trait, as the renderer reads the words; UNSAID where not stated.

    No colours are read from captions that state a style: a pencil drawing has none.
    """
    spec = read_prompt(caption, keyword)
    place = next(number for number, families in enumerate(PLACES.values()) if spec.family in families)
    items = {name: None if spec.style else spec.find(thing) for name, thing in COLOURED.items()}
    return {"place": place} | {name: _colour(item) for name, item in items.items()}


def stack_traits(rows: list[dict[str, int]]) -> dict[str, NDArray[np.int64]]:
    """Labels (N,) by trait."""
    return {name: np.array([row[name] for row in rows], dtype=np.int64) for name in TRAITS}


def majority_share(labels: Mapping[str, NDArray[np.int64]]) -> dict[str, float | None]:
    """Score of always predicting the most frequent value, by trait; None if no caption states it."""
    said = {name: values[values != UNSAID] for name, values in labels.items()}
    return {
        name: float(np.bincount(values).max() / len(values)) if len(values) else None for name, values in said.items()
    }


def _colour(item: Item | None) -> int:
    return UNSAID if item is None or item.colour is None else _basic_colours()[item.colour]


@cache
def _basic_colours() -> dict[RGB, int]:
    """Index into COLOURS of every colour of the vocabulary."""
    named = vocabulary().colours
    return {
        named[normalise(name)]: number for number, names in enumerate(COLOURS.values()) for name in names.split(", ")
    }
