"""Weights of what captions draw: `prompts.vary`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from dmp_core.prompts.words import traits
from dmp_core.settings import Settings
from dmp_core.text import did_you_mean

Item = TypeVar("Item", str, int)
OTHER = "other"
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Word = Annotated[str, BeforeValidator(str)]
"""YAML reads `1` as a number."""
Weights = Mapping[str, float]


class VaryConfig(Settings):
    """Weights of what captions draw, by trait: word → weight, 0 for never.

    `other` is the weight of all words that are not listed; by default 1, as likely as without weights.
    """

    colour: dict[Word, Weight] = {}
    """Of objects, walls, floors and light."""
    material: dict[Word, Weight] = {}
    """Of objects, walls and floors."""
    light: dict[Word, Weight] = {}
    """Of phrases (`at dusk`) and adjectives (`candlelit`)."""
    style: dict[Word, Weight] = {}
    """Of interiors (`rustic`); places outdoors have none."""
    objects: dict[Word, Weight] = {}
    """Of the number of different objects in a caption, `1` to `3`; a sentence without room for them names fewer."""

    @model_validator(mode="after")
    def _known_words(self) -> VaryConfig:
        for trait, words in traits().items():
            weights: Weights = getattr(self, trait)
            for word in weights:
                if word != OTHER and word not in words:
                    known = f"choose among {', '.join(words)} and {OTHER}"
                    raise ValueError(f"{trait}.{word}: not drawn{did_you_mean(word, words)}; {known}")
            if words and not any(weight_of(weights, word) for word in words):
                raise ValueError(f"{trait}: every weight is 0; leave out {OTHER}: 0, or give one word a weight")
        return self


def weight_of(weights: Weights, item: str | int) -> float:
    return weights.get(str(item), weights.get(OTHER, 1.0))


def draw(rng: random.Random, items: Sequence[Item], weights: Weights) -> Item | None:
    """One item; None if none may be drawn. Without weights the draw is `rng.choice`, as it always was."""
    if not weights:
        return rng.choice(items)
    each = [weight_of(weights, item) for item in items]
    return rng.choices(items, each)[0] if any(each) else None


def ordered(rng: random.Random, items: Sequence[str], weights: Weights) -> list[str]:
    """All items that may be drawn, in a random order, the first to take last."""
    if not weights:
        return rng.sample(items, len(items))
    kept = [(rng.random() ** (1 / weight), item) for item in items if (weight := weight_of(weights, item))]
    return [item for _, item in sorted(kept)]
