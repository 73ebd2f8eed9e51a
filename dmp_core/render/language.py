"""From the words of a prompt to what the scene must show.

Pure and forgiving: unknown words are skipped, and no text raises. The grammar
is local: modifiers wait for the next noun ("two red velvet pillows"), and a
noun picks up what a linking word brings after it ("walls painted light blue").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dmp_core.keywords.english import is_plural
from dmp_core.keywords.meaning import meaning_of
from dmp_core.render.vocabulary import RGB, normalise, vocabulary

# How far, in words, a modifier reaches forward to its noun.
_REACH = 3
_LINKS = {"painted", "in", "is", "are", "of", "covered", "coloured", "colored", "made", "upholstered"}
_BREAKS = {",", ".", ";", ":", "with", "and", "near", "beside", "on", "under", "by", "against", "next"}
_MATERIAL_ALONE = {
    "carpet": "floor", "carpeted": "floor", "parquet": "floor", "hardwood": "floor",
    "brick": "wall", "wallpapered": "wall", "tiled": "wall",
}  # fmt: skip
_ROOM_WORDS = ("room", "interior", "space", "scene")
# Styles that only count as such when no noun follows ("a pencil drawing", but not "pastel walls").
_SHY_STYLES = {
    "pastel",
    "pencil",
    "chalk",
    "crayon",
    "charcoal drawing",
    "sepia",
    "oil paint",
    "mosaic",
    "stained glass",
}
_SURFACES = ("wall", "floor", "ceiling")


@dataclass(frozen=True)
class Item:
    """One thing that the prompt names. `count` is None where a bare plural leaves it open."""

    name: str
    count: int | None = 1
    colours: tuple[RGB, ...] = ()
    material: str | None = None
    size: float = 1.0
    word: str = ""  # as written: "floor lamp" and "bedside lamp" are both lamps

    @property
    def colour(self) -> RGB | None:
        return self.colours[0] if self.colours else None


@dataclass(frozen=True)
class SceneSpec:
    """What the words ask for. Everything that they leave open is drawn from the seed."""

    prompt: str
    keyword: str
    family: str
    kind: str | None = None
    """How it is arranged, as `Meaning` has it."""
    items: tuple[Item, ...] = ()
    light: str | None = None
    style: str | None = None
    decor: str | None = None
    room_size: float = 1.0

    def find(self, name: str) -> Item | None:
        """The prompt's first mention of an object, if any."""
        return next((item for item in self.items if item.name == name), None)


@dataclass
class _Token:
    text: str
    kinds: dict[str, object] = field(default_factory=dict)
    position: int = 0


@lru_cache(maxsize=1)
def _phrases() -> dict[str, dict[str, object]]:
    """Every known phrase -> {kind: value}; a phrase may be of several kinds (glass, orange)."""
    v = vocabulary()
    table: dict[str, dict[str, object]] = {}
    groups = (
        ("colour", v.colours), ("material", v.materials), ("light", v.light), ("style", v.styles),
        ("decor", v.decor), ("count", v.counts), ("size", v.sizes), ("object", v.synonyms),
    )  # fmt: skip
    for kind, words in groups:
        for phrase, value in words.items():
            table.setdefault(phrase, {})[kind] = value
    for family in v.families.values():
        table.setdefault(normalise(family.phrase), {}).setdefault("room", family.name)
    for word in _ROOM_WORDS:
        table.setdefault(word, {})["room"] = None
    table.setdefault("walled", {})["object"] = "wall"
    return table


@lru_cache(maxsize=1)
def _longest_phrase() -> int:
    return max(len(p.split()) for p in _phrases())


def tokenise(text: str) -> list[_Token]:
    """Longest known phrases first; unknown words stay, with no kinds."""
    words = normalise(text).replace(",", " , ").replace(".", " . ").replace(";", " ; ").replace(":", " : ").split()
    table, out, i = _phrases(), [], 0
    while i < len(words):
        for n in range(min(_longest_phrase(), len(words) - i), 0, -1):
            phrase = " ".join(words[i : i + n])
            if phrase in table:
                out.append(_Token(phrase, table[phrase], i))
                i += n
                break
        else:
            word = words[i]
            small_number = word.isascii() and word.isdigit() and len(word) <= 2 and int(word) <= 12
            kinds: dict[str, object] = {"count": int(word)} if small_number else {}
            out.append(_Token(word, kinds, i))
            i += 1
    return out


def _noun_follows(tokens: list[_Token], i: int, reach: int = 2, rooms: bool = False) -> bool:
    """Whether an object noun stands within `reach` tokens after i, no break between."""
    for token in tokens[i + 1 : i + 1 + reach]:
        if token.text in _BREAKS:
            return False
        if "object" in token.kinds or (rooms and "room" in token.kinds):
            return True
    return False


@dataclass
class _Pending:
    """Modifiers that still wait for their noun."""

    colours: list[RGB] = field(default_factory=list)
    material: str | None = None
    count: int | None = None
    size: float = 1.0
    position: int = -99

    def fresh(self, position: int) -> bool:
        return position - self.position <= _REACH


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.items: list[Item] = []
        self.pending = _Pending()
        self.light: str | None = None
        self.style: str | None = None
        self.decor: str | None = None
        self.room_size = 1.0
        self.linked = -99  # position of the last linking word after a noun

    def read(self) -> None:
        for i, token in enumerate(self.tokens):
            self._step(i, token)
        self._settle()

    def _step(self, i: int, token: _Token) -> None:
        kinds = token.kinds
        colour_next = i + 1 < len(self.tokens) and "colour" in self.tokens[i + 1].kinds
        if "object" in kinds and not self._acts_as_modifier(i, token) and not self._is_lightness(i, token):
            self._noun(i, token, str(kinds["object"]))
        elif token.text == "black and white" and _noun_follows(self.tokens, i, rooms=True):
            self.pending.colours += [vocabulary().colours["black"], vocabulary().colours["white"]]
            self.pending.position = token.position + 2
            return
        elif "room" in kinds:
            self._room(token)
        elif "colour" in kinds:
            self._colour(i, token, vocabulary().colours[token.text])
        elif "material" in kinds:
            self._material(i, token)
        elif "count" in kinds:
            self._settle()
            self.pending = _Pending(count=int(kinds["count"]), position=token.position)  # type: ignore[call-overload]
        elif "size" in kinds:
            self.pending.size = float(kinds["size"])  # type: ignore[arg-type]
            self.pending.position = token.position
        elif token.text in _BREAKS and token.text != "and":
            self._settle()
        if "light" in kinds and not colour_next and self._lights(i):
            self.light = str(kinds["light"])
        if "style" in kinds and not (token.text in _SHY_STYLES and _noun_follows(self.tokens, i, 1)):
            self.style = str(kinds["style"])
        if "decor" in kinds:
            self.decor = str(kinds["decor"])
        if token.text in _LINKS:
            self.linked = token.position

    def _acts_as_modifier(self, i: int, token: _Token) -> bool:
        """'glass table', 'sand flowers': a noun that names a stuff or colour before another noun."""
        if "material" not in token.kinds and "colour" not in token.kinds:
            return False
        for after in self.tokens[i + 1 :]:
            if "object" in after.kinds:
                return True
            if not {"material", "colour", "size"} & after.kinds.keys():
                return False
        return False

    def _lights(self, i: int) -> bool:
        """'dark oak' and 'bright curtains' say nothing of the light; 'warm light' does."""
        after = self.tokens[i + 1] if i + 1 < len(self.tokens) else None
        if after is None or after.text in ("light", "lighting", "lights"):
            return True
        return not ("material" in after.kinds or "object" in after.kinds)

    def _is_lightness(self, i: int, token: _Token) -> bool:
        """'warm light' speaks of lighting, not of a ceiling lamp; 'oil painting of' of a style."""
        before = self.tokens[i - 1].kinds if i else {}
        return (
            token.kinds["object"] == "light" and token.text == "light" and "light" in before
        ) or "style" in token.kinds

    def _colour(self, i: int, token: _Token, rgb: RGB) -> None:
        follows = _noun_follows(self.tokens, i, rooms=True) or any(
            "colour" in t.kinds for t in self.tokens[i + 1 : i + 3]
        )
        after_noun = self.items and not follows and token.position - self.linked <= 2 and not self.items[-1].colours
        if after_noun:
            self.items[-1] = replace(self.items[-1], colours=(rgb,))
            return
        self.pending.colours.append(rgb)
        self.pending.position = token.position

    def _material(self, i: int, token: _Token) -> None:
        name = vocabulary().materials[token.text].name
        linked = not _noun_follows(self.tokens, i) and token.position - self.linked <= 2
        if linked and self.items and self.items[-1].material is None:
            self.items[-1] = replace(self.items[-1], material=name)
            return
        self.pending.material = name
        self.pending.position = token.position

    def _noun(self, i: int, token: _Token, name: str) -> None:
        definite = i > 0 and self.tokens[i - 1].text == "the"
        if definite and any(item.name == name for item in self.items):
            return  # the one that was named before
        p = self.pending if self.pending.fresh(token.position) else _Pending()
        count = p.count
        if count is None and not is_plural(token.text):
            count = 1
        if count == 1 and is_plural(token.text) and p.count is None:
            count = None
        self.items.append(Item(name, count, tuple(p.colours), p.material, p.size, token.text))
        self.pending = _Pending()
        self.linked = -99

    def _room(self, token: _Token) -> None:
        p = self.pending
        if p.fresh(token.position):
            self.room_size *= p.size
            if p.colours or p.material:
                self.items.append(Item("wall", 1, tuple(p.colours), p.material))
        self.pending = _Pending()

    def _settle(self) -> None:
        """Modifiers that found no noun: some materials imply one ('a grey carpet')."""
        p, self.pending = self.pending, _Pending()
        if p.material in _MATERIAL_ALONE:
            self.items.append(Item(_MATERIAL_ALONE[p.material], 1, tuple(p.colours), p.material))


def _merge(items: list[Item]) -> tuple[Item, ...]:
    """Surfaces are one thing each: the first word on each attribute wins."""
    out = [i for i in items if i.name not in _SURFACES]
    for name in _SURFACES:
        same = [i for i in items if i.name == name]
        if same:
            colours = next((i.colours for i in same if i.colours), ())
            out.append(Item(name, 1, colours, next((i.material for i in same if i.material), None)))
    return tuple(out)


@lru_cache(maxsize=1)
def _listed_places() -> frozenset[str]:
    return frozenset(normalise(k) for f in vocabulary().families.values() for k in f.keywords)


def _without_place_name(prompt: str, keyword: str) -> str:
    """'A food court' speaks of a place, not of food: names of listed places become 'room'."""
    place = normalise(keyword.split("/")[0])
    text = normalise(prompt)
    known_thing = place in vocabulary().synonyms
    if normalise(keyword) not in _listed_places() or " " not in place or place == text or known_thing:
        return prompt
    return re.sub(rf"\b{re.escape(place)}\b", "room", text)


def read_prompt(prompt: str, keyword: str) -> SceneSpec:
    """What the words ask for. Total: any text gives a scene."""
    reader = _Reader(tokenise(_without_place_name(prompt, keyword)))
    reader.read()
    meaning = meaning_of(keyword)
    return SceneSpec(
        prompt=prompt, keyword=keyword, family=meaning.family.name, kind=meaning.kind, items=_merge(reader.items),
        light=reader.light, style=reader.style, decor=reader.decor, room_size=reader.room_size,
    )  # fmt: skip
