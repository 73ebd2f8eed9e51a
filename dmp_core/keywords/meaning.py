"""What a keyword means: the family of rooms or places that captions speak of and scenes show.

The grammar and the renderer both ask here, so that a caption and its image agree. The knowledge is in
`data_manifests/vocabulary.yaml` (what is in a family's places) and `places.yaml` (which words mean it).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

from dmp_core.keywords.english import is_free_text, readable_keyword, singular, without_accents
from dmp_core.resources import manifest_path
from dmp_core.yaml import load_yaml

_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "å": "a", "ł": "l", "đ": "d", "ı": "i"})
_TOKEN = re.compile(r"[\w]+(?:['’]s\b)?|[,.;:&+()!?-]")
_COMPOUND = 4  # letters that the last part of a compound has at least; one less after a known word, and before it
_TYPO = 5  # letters that a word has at least for which a similar one is looked up
_SIMILAR, _SIMILAR_SHORT = 0.83, 0.8  # of `difflib`; one wrong letter of five is 0.8
MEANINGS = 2
"""Number of the rules below, for fingerprints of datasets with a keyword that `former` reads otherwise."""
_LAST_WITH_SPACES = 0x2E7F  # scripts above it write their words without spaces


@dataclass(frozen=True)
class Family:
    """A kind of room or place, with what is typically in it."""

    name: str
    phrase: str
    main: str
    objects: tuple[str, ...]
    cues: tuple[str, ...]
    """Words that a caption may have instead of its keyword."""
    keywords: tuple[str, ...]
    outdoor: bool = False
    abstract: bool = False


@dataclass(frozen=True)
class Meaning:
    """A family, and how its scene is arranged where a family has several arrangements (`pews` of a hall)."""

    family: Family
    captioned: Family
    """Whose things captions name: the same family, but for keywords of shipped lists with recorded captions."""
    kind: str | None = None
    known: bool = True
    """Whether any word of the keyword says so."""


Rank = Literal["place", "generic", "thing", "modifier"]
Scope = Literal["indoors", "outdoors", "anywhere"]


@dataclass(frozen=True)
class _Sense:
    """What a word or phrase says. `scope`: the families among which other words choose for a generic noun."""

    family: str
    rank: Rank
    scope: Scope = "anywhere"


@dataclass(frozen=True)
class _Part:
    """One part of a keyword: how it is linked to the parts before, what it says, and from where it is seen."""

    link: str
    sense: _Sense | None
    phrase: str = ""
    marker: Scope | None = None

    def says(self, *ranks: Rank) -> bool:
        return self.sense is not None and self.sense.rank in ranks


@cache
def vocabulary_file() -> dict[str, Any]:
    """`data_manifests/vocabulary.yaml` as it is."""
    return _read_manifest("vocabulary.yaml")


def _read_manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = load_yaml(manifest_path(name).read_bytes())
    return loaded


@cache
def families() -> dict[str, Family]:
    return {name: _family(name, entry) for name, entry in vocabulary_file()["families"].items()}


def _family(name: str, entry: dict[str, Any]) -> Family:
    read: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Family(name=name, **read)


@lru_cache(maxsize=4096)
def meaning_of(keyword: str) -> Meaning:
    """What a keyword or any other text means. Total: what says nothing is a living room or, as free text, a still life.

    A name of the lists in vocabulary.yaml means what is written there. Else the noun at the end of the first part that
    names a place decides; a place outranks things, and words such as `interior` say from where it is seen.
    """
    phrase = readable_keyword(keyword)
    found = _listed().get(_key(keyword)) or _listed().get(_key(phrase)) or _read(phrase)
    family = families()[found or ("still_life" if is_free_text(phrase) else "living_room")]
    captioned = families()[_places()["captions"].get(keyword, family.name)]
    return Meaning(family, captioned, _kind(phrase, family), found is not None)


# ------------------------------------------------------------------------------------ the words
def _words(text: str) -> list[str]:
    """Singular words and punctuation in one spelling, without articles: `The KidsRoom` → `kid`, `room`."""
    text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-Z])", " ", text).lower().translate(_LETTERS)
    tokens = _TOKEN.findall(re.sub(r"[_/]+|(?<=\w)-(?=\w)", " ", without_accents(text)))
    return [singular(re.sub(r"['’]s$", "", token)) for token in tokens if token not in _links("articles")]


def _key(phrase: str) -> str:
    return " ".join(_words(phrase))


@cache
def _listed() -> dict[str, str]:
    """The names of the lists, as words, and as captions turn them: `indoor church` is `church/indoor`."""
    names = [(keyword, family.name) for family in families().values() for keyword in family.keywords]
    return {_key(readable_keyword(k)): family for k, family in names} | {_key(k): family for k, family in names}


@cache
def _places() -> dict[str, Any]:
    return _read_manifest("places.yaml")


@cache
def _links(kind: Literal["placing", "aside", "joining", "articles"]) -> frozenset[str]:
    return frozenset(_places()["links"][kind].split())


@cache
def _separators() -> frozenset[str]:
    return _links("placing") | _links("aside") | _links("joining")


@cache
def _senses() -> dict[str, _Sense]:
    """Phrase → what it says; the first entry counts."""
    table: dict[str, _Sense] = {}

    def add(entries: Mapping[str, Iterable[str]], rank: Rank, scope: Scope = "anywhere") -> None:
        for family, phrases in entries.items():
            for phrase in phrases:
                table.setdefault(_key(phrase), _Sense(family, rank, scope))

    add(_places()["places"], "place")
    for scope, entries in _places()["generic"].items():
        add(entries, "generic", scope)
    add(_unqualified(), "place")
    add(_places()["things"], "thing")
    return table


def _unqualified() -> dict[str, list[str]]:
    """Family → names of the lists without their qualifier, as far as all that have such a name are of one family."""
    owners: dict[str, set[str]] = {}
    for family in families().values():
        for keyword in family.keywords:
            owners.setdefault(keyword.partition("/")[0], set()).add(family.name)
    return {f: [name for name, owner in owners.items() if owner == {f}] for f in families()}


@cache
def _modifiers() -> dict[str, str]:
    table: dict[str, str] = {}
    for family, phrases in _places()["modifiers"].items():
        for phrase in phrases:
            table.setdefault(_key(phrase), family)
    return table


@cache
def _buildings() -> dict[str, list[str]]:
    return {_key(noun): sides for noun, sides in _places()["buildings"].items()}


@cache
def _markers() -> dict[str, Scope]:
    return {_key(phrase): scope for scope, phrases in _places()["markers"].items() for phrase in phrases}


@cache
def _other_words() -> frozenset[str]:
    """Words that the renderer knows and that name no place: no slips of the pen."""
    raw = vocabulary_file()
    groups = [raw[key] for key in ("colours", "materials", "light", "styles", "decor", "counts", "sizes", "objects")]
    synonyms = [word for entry in raw["objects"].values() for word in entry["synonyms"]]
    phrases = [*(phrase for group in groups for phrase in group), *synonyms, *_modifiers(), *_places()["empty"]]
    return frozenset(word for phrase in phrases for word in _words(phrase))


# ------------------------------------------------------------------------------------ the parts
def _read(phrase: str) -> str | None:
    """Name of the family that a phrase means; None if none of its words says any."""
    parts = [_part(link, words) for link, words in _split(_words(phrase))]
    subject = _subject(parts)
    marker = _marker(parts, subject) or _of_many(phrase, subject)
    if subject is None or subject.sense is None:
        return {"indoors": "living_room", "outdoors": "park"}[marker] if marker else None
    family = _moved(subject, parts)
    return _seen(family, subject.phrase, marker) if marker else family


def _split(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Parts with the word that links each to the ones before; a known phrase is not cut: `bed and breakfast`."""
    link, at = "", 0
    part: list[str] = []
    while at < len(words):
        length = next((n for n in range(min(_longest(), len(words) - at), 1, -1) if _uncut(words[at : at + n])), 1)
        token = " ".join(words[at : at + length])
        at += length
        if token in _separators() and token not in _markers():
            yield link, part
            link, part = token, []
        else:
            part.append(token)
    yield link, part


def _uncut(words: Sequence[str]) -> bool:
    return not _separators().isdisjoint(words) and " ".join(words) in _senses()


@cache
def _longest() -> int:
    return max(len(phrase.split()) for phrase in _senses())


def _part(link: str, words: Sequence[str]) -> _Part:
    """What one part says: its last noun that names a place, else its last thing, else a modifier."""
    hits = list(_hits([spelled for word in words for spelled in _spelled(word)]))
    marker = next((_markers()[phrase] for phrase in hits if phrase in _markers()), None)
    senses = [(phrase, sense) for phrase in hits if (sense := _senses().get(phrase))]
    for number, phrase in enumerate(hits):
        sense = _senses().get(phrase)
        if sense and sense.rank in ("place", "generic"):
            return _Part(link, _chosen(sense, hits[number + 1 :]), phrase, marker)
    if senses:
        return _Part(link, senses[0][1], senses[0][0], marker)
    says = next((_Sense(_modifiers()[phrase], "modifier") for phrase in hits if phrase in _modifiers()), None)
    return _Part(link, says, "", marker)


def _hits(words: Sequence[str]) -> Iterator[str]:
    """The phrases of a part that say anything, the last one first, each as long as possible."""
    end = len(words)
    while end > 0:
        for length in range(min(_longest(), end), 0, -1):
            phrase = " ".join(words[end - length : end])
            if phrase in _senses() or phrase in _modifiers() or phrase in _markers():
                yield phrase
                break
        end -= length  # one, if nothing was found


@lru_cache(maxsize=4096)
def _spelled(word: str) -> tuple[str, ...]:
    """A word that no list has, as its two parts (`toolhouse`) or as the similar word that it may be (`kichen`)."""
    if word in _all_words() or " " in word:
        return (word,)
    for other in (word[:-1], word[:-1] + "ie"):  # volcanoe(s), prairy(s)
        if other in _all_words():
            return (other,)
    compound, similar = _compound(word), _similar(word)
    sure = compound and min(map(len, compound)) >= _COMPOUND and compound[0] in _all_words()
    return compound if compound and (sure or not similar) else similar or (word,)


def _compound(word: str) -> tuple[str, ...]:
    """The two parts of a compound; rather with a first part that is known (`Fluss|tal`)."""
    found: list[tuple[str, ...]] = []
    for cut in range(1, len(word)):
        first, last = singular(word[:cut]), word[cut:]
        least = _COMPOUND - (first in _all_words())
        spaced = ord(last[0]) <= _LAST_WITH_SPACES
        if last in _senses() and not (spaced and (cut < _COMPOUND - 1 or len(last) < least)):
            found.append((first, last))
    return next((parts for parts in found if parts[0] in _all_words()), found[0] if found else ())


def _similar(word: str) -> tuple[str, ...]:
    if len(word) < _TYPO:
        return ()
    among = [known for known in _nouns_by_letter().get(word[0], ()) if abs(len(known) - len(word)) <= 1]
    least = _SIMILAR if len(word) > _TYPO + 1 else _SIMILAR_SHORT
    return tuple(difflib.get_close_matches(word, among, 1, least))


@cache
def _nouns_by_letter() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for phrase in [*_senses(), *_modifiers()]:
        if " " not in phrase and len(phrase) >= _COMPOUND:
            table.setdefault(phrase[0], []).append(phrase)
    return table


@cache
def _all_words() -> frozenset[str]:
    phrases = [*_senses(), *_modifiers(), *_markers(), *_separators()]
    return _other_words().union(*(phrase.split() for phrase in phrases))


# ------------------------------------------------------------------------------------ the choice
def _chosen(sense: _Sense, others: Iterable[str]) -> _Sense:
    """The sense of a noun; of a generic one, by the words before it, the nearest first."""
    if sense.rank != "generic":
        return sense
    for phrase in others:
        found = _senses().get(phrase)
        family = _modifiers().get(phrase) or (found.family if found else None)
        if family and (moved := _within(family, phrase, sense.scope)):
            return _Sense(moved, "place")
    return sense


def _within(family: str, phrase: str, scope: Scope) -> str | None:
    """The family, if a generic noun of this scope may mean it, or what it is from inside."""
    if families()[family].abstract:
        return None
    if scope == "indoors" and families()[family].outdoor:
        sides = _sides(phrase)
        return sides[0] if sides else None
    return family if scope != "outdoors" or families()[family].outdoor else None


def _subject(parts: Sequence[_Part]) -> _Part | None:
    """The part that says what is seen: the first place, else a room named aside, else a thing, else a modifier."""
    aside = [part for part in parts if part.link in _links("aside")]
    places = [part for part in parts if part not in aside and part.says("place", "generic")]
    rooms = [part for part in aside if part.says("place") and not _outdoor(part)]
    things = [part for part in parts if part.says("thing")]
    modifiers = [part for part in parts if part.says("modifier")]
    return next(iter([*places, *rooms, *_main_thing(things), *modifiers]), None)


def _main_thing(things: Sequence[_Part]) -> list[_Part]:
    """The thing with the longest name; if it lives outdoors, rather what it lies on (a cat, a sofa)."""
    main = sorted(things, key=lambda part: -len(part.phrase.split()))[:1]
    rooms = [part for part in things if part.link in _links("placing") and not _outdoor(part)]
    return rooms[:1] if rooms and _outdoor(main[0]) else main


def _outdoor(part: _Part) -> bool:
    return part.sense is not None and families()[part.sense.family].outdoor


def _marker(parts: Sequence[_Part], subject: _Part | None) -> Scope | None:
    """From where the subject is seen: by a word beside it, before it, or in a part that says nothing else."""
    at = next((number for number, part in enumerate(parts) if part is subject), len(parts))
    said = [part.marker for number, part in enumerate(parts) if part.marker and (number <= at or not part.sense)]
    return said[-1] if said else None


def _moved(subject: _Part, parts: Sequence[_Part]) -> str:
    """The subject's family, after the other parts were heard: `a room with a bathtub`, `a house by the sea`."""
    assert subject.sense is not None
    sense, others = subject.sense, [part for part in parts if part is not subject and part.sense]
    around = [p.sense.family for p in others if p.link in _links("placing") and p.says("place") and p.sense]
    outdoors = next((family for family in around if families()[family].outdoor), None)
    if outdoors and not families()[sense.family].outdoor and _sides(subject.phrase):
        return outdoors
    if sense.rank == "generic":
        moved = [_within(part.sense.family, part.phrase, sense.scope) for part in others if part.sense]
        return next((family for family in moved if family), sense.family)
    return sense.family


def _of_many(phrase: str, subject: _Part | None) -> Scope | None:
    """Houses, more than one of them, are seen from outside."""
    dwelling = subject.phrase if subject and subject.phrase in _places()["dwellings"] else None
    return "outdoors" if dwelling and re.search(rf"\b{dwelling}s\b", phrase.lower()) else None


def _seen(family: str, phrase: str, marker: Scope) -> str:
    """The family of the same place from inside or outside."""
    outdoor, abstract = families()[family].outdoor, families()[family].abstract
    if abstract or outdoor == (marker == "outdoors"):
        return family
    if sides := _sides(phrase):
        return sides[marker == "outdoors"]
    return str(_places()["inside"][family] if outdoor else _places()["outside"].get(family, "street"))


def _sides(phrase: str) -> list[str] | None:
    """[inside, outside] of a building, by its last word if need be."""
    return _buildings().get(phrase) or _buildings().get(phrase.rpartition(" ")[2])


def _kind(phrase: str, family: Family) -> str | None:
    """How a hall or shop is arranged, by any word of the keyword."""
    words = [spelled for word in _words(phrase) for spelled in _spelled(word)]
    text = f" {' '.join(words)} "
    kinds = _places()["kinds"].get(family.name, {})
    return next((kind for kind, nouns in kinds.items() if any(f" {_key(noun)} " in text for noun in nouns)), None)
