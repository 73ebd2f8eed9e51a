"""What keywords meant while the grammar and the renderer each decided for themselves.

Datasets whose keywords mean the same since then keep their captions, scenes and fingerprints. This is a record: it
changes with nothing, and `cues` in vocabulary.yaml may only change together with the version in the stage's file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from dmp_core.keywords.english import has_word, is_free_text, readable_keyword
from dmp_core.keywords.meaning import MEANINGS, Family, families, meaning_of
from dmp_core.resources import manifest_path

_SEATS = ("theater", "cinema", "movie", "auditorium", "amphitheater", "orchestra", "arena")
_PEWS = ("church", "chapel", "cathedral")


def meanings(keywords: Iterable[str]) -> int | None:
    """For fingerprints of what is captioned or drawn from keywords: `MEANINGS`, if one of them means another place."""
    return None if all(map(means_the_same, keywords)) else MEANINGS


@lru_cache(maxsize=4096)
def means_the_same(keyword: str) -> bool:
    """Whether both decided on the family of today, so that captions and scenes are the same bytes."""
    return keyword in _shipped() or _decided_alike(keyword)


def _decided_alike(keyword: str) -> bool:
    meaning = meaning_of(keyword)
    family, as_room = meaning.family, meaning.family.abstract and not is_free_text(readable_keyword(keyword))
    return (
        (_captioned(keyword), _drawn(keyword)) == (meaning.captioned.name, family.name)
        and meaning.kind == _arranged(keyword, family.name)
        and not as_room  # a thing was captioned with walls and a floor
    )


def _captioned(keyword: str) -> str:
    text = readable_keyword(keyword).lower()
    found = [(len(cue), family.name) for family in families().values() for cue in family.cues if has_word(text, cue)]
    return max(found)[1] if found else "still_life" if is_free_text(readable_keyword(keyword)) else "living_room"


def _drawn(keyword: str) -> str | None:
    """None: by the caption."""
    words = [word.strip(",.;:") for word in _normalised(keyword).split()]
    scores = {family.name: _score(f" {' '.join(words)} ", family) for family in families().values()}
    best = max(scores, key=lambda name: scores[name])
    return _named().get(_normalised(keyword)) or (best if scores[best] > 0 else None)


@cache
def _shipped() -> frozenset[str]:
    """Keywords of the shipped lists: a test verifies that they mean the same. Without it, every plan would read all."""
    texts = [path.read_text(encoding="utf-8") for path in manifest_path("keywords").glob("*.txt")]
    return frozenset(line.strip() for text in texts for line in text.splitlines())


@cache
def _named() -> dict[str, str]:
    return {_normalised(listed): family.name for family in families().values() for listed in family.keywords}


def _score(text: str, family: Family) -> float:
    best = 0.0
    for cue in {*map(_normalised, family.cues), _normalised(family.phrase)}:
        at = next((text.find(f" {form} ") for form in (cue, cue + "s") if f" {form} " in text), -1)
        if at >= 0:
            score = 3.0 * len(cue.split()) + (2.0 if cue == _normalised(family.phrase) else 0.0)
            score += 0.0 if family.outdoor or family.abstract else 0.5
            best = max(best, score - at / (10.0 * len(text)) - 1e-9)
    return best


def _arranged(keyword: str, family: str) -> str | None:
    if family == "shop":
        return "books" if any(word in keyword for word in ("book", "video")) else None
    if family != "hall":
        return None
    pews, seats = (any(word in keyword for word in words) for words in (_PEWS, _SEATS))
    return "pews" if pews else "seats" if seats else None


def _normalised(text: str) -> str:
    text = re.sub(r"[^\w\s,.;:]", "", re.sub(r"[_/\-]+", " ", text.lower()))
    return re.sub(r"\s+", " ", text).strip()
