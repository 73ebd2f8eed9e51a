"""The words that the renderer knows, read once from ``data_manifests/vocabulary.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dmp_core.keywords.english import plural
from dmp_core.keywords.meaning import Family, families, vocabulary_file

RGB = tuple[float, float, float]
"""A display colour (gamma 2.2), 0..255."""


def as_rgb(values: Iterable[float]) -> RGB:
    """Three numbers, whatever holds them, as a colour."""
    red, green, blue = (float(v) for v in values)
    return red, green, blue


@dataclass(frozen=True)
class Stuff:
    """A material word: its texture and, where the stuff has one, its own colour."""

    name: str
    texture: str
    colour: RGB | None


@dataclass(frozen=True)
class Vocabulary:
    families: dict[str, Family]
    colours: dict[str, RGB]
    materials: dict[str, Stuff]
    light: dict[str, str]
    styles: dict[str, str]
    decor: dict[str, str]
    counts: dict[str, int]
    sizes: dict[str, float]
    objects: dict[str, int]
    synonyms: dict[str, str]  # every name and synonym -> canonical object name


def normalise(text: str) -> str:
    """Lower case; underscores, slashes and hyphens become spaces; punctuation other than commas goes."""
    text = re.sub(r"[_/\-]+", " ", text.lower())
    text = re.sub(r"[^\w\s,.;:]", "", text)
    return re.sub(r"\s+", " ", text).strip()


def _stuff(name: str, entry: dict[str, Any]) -> Stuff:
    colour = entry.get("colour")
    return Stuff(name, entry["texture"], as_rgb(colour) if colour else None)


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """The parsed vocabulary; phrases are normalised (``off-white`` -> ``off white``)."""
    raw = vocabulary_file()
    synonyms = {}
    for name, entry in raw["objects"].items():
        for word in (name, *entry["synonyms"]):
            synonyms[normalise(word)] = name
    for word, name in list(synonyms.items()):
        if not word.endswith("s"):
            synonyms.setdefault(plural(word), name)
    return Vocabulary(
        families=families(),
        colours={normalise(n): as_rgb(c) for n, c in raw["colours"].items()},
        materials={normalise(n): _stuff(n, e) for n, e in raw["materials"].items()},
        light={normalise(n): v for n, v in raw["light"].items()},
        styles={normalise(n): v for n, v in raw["styles"].items()},
        decor={normalise(n): v for n, v in raw["decor"].items()},
        counts={normalise(n): int(v) for n, v in raw["counts"].items()},
        sizes={normalise(n): float(v) for n, v in raw["sizes"].items()},
        objects={n: int(e["id"]) for n, e in raw["objects"].items()},
        synonyms=synonyms,
    )


def class_id(name: str) -> int:
    """Class id of one of our object names (``window`` -> 8)."""
    return vocabulary().objects[name]
