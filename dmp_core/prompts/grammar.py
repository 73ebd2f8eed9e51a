"""Captions from a grammar: no model, instant, and every word is one that the renderer draws."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import ClassVar

from dmp_core.keywords.english import has_word, is_free_text, is_plural, plural, readable_keyword
from dmp_core.keywords.meaning import Family, meaning_of
from dmp_core.prompts.settings import GrammarPrompts
from dmp_core.prompts.vary import VaryConfig, Weights, draw, ordered
from dmp_core.prompts.words import (
    DECOR,
    LIGHT_ADJECTIVES,
    LIGHT_PHRASES,
    LISTS,
    MATERIALS,
    SURFACES,
    each,
    vocabulary_words,
    words_of,
)

# Nature is not painted at random.
_NATURAL_COLOURS = {
    **each("tree, grass, plant, palm, hill", words_of("green, dark green, light green, olive, golden")),
    **each("sea, river, water", words_of("blue, turquoise, teal, dark blue")),
    **each("mountain, rock, earth, sand, path, road, sidewalk", words_of("grey, brown, tan, sand, rust, charcoal")),
    **each("sky", words_of("blue, pale blue, grey, orange, pink, dark blue")),
}
_OTHER_NAMES: dict[str, list[str]] = {
    "bed": ["double bed", "canopy bed"],
    "blanket": ["quilt", "duvet", "bedspread"],
    "sofa": ["couch"],
    "lamp": ["floor lamp", "table lamp"],
    "plant": ["potted plant"],
    "painting": ["framed picture"],
    "cabinet": ["cupboard"],
    "nightstand": ["bedside table"],
    "bookcase": ["bookshelf"],
    "box": ["cube"],
    "ball": ["sphere"],
}
_UNCOUNTABLE = frozenset(words_of("sky, grass, sea, sand, food, earth, stairs, water"))
_SINGLE = frozenset(
    words_of(
        "bed, bathtub, toilet, stove, refrigerator, hood, fireplace, sofa, television, microwave, counter, bar, "
        "whiteboard, stage, river, path, road, sidewalk, sky, desk, kitchen island, pool table, swimming pool, "
        "conveyer belt"
    )
)
_COLOURLESS = frozenset(words_of("mirror, window, television, computer, monitor, screen, food, person"))

_SIZES = words_of("large, spacious, small, narrow, compact, tiny")
_MANNERS = words_of("tidy, quiet, charming, inviting, peaceful, beautiful")

_ROOM_TEMPLATES = [
    "{A_place} with {list3} {light}",
    "{A_place} with {walls} and {floor}, {list2}",
    "{A_place} with {list2}, {walls}, {light}",
    "A photo of {a_place} with {list2} and {walls}",
    "{Main} in {a_place} with {list2} on {a_floor}",
    "{A_place}, {main} next to {other}, {walls}, {light}",
    "Interior of {a_place} {light}, {list3}",
    "{Main} stands on {a_floor} beside {other} in {a_place}",
    "{A_place} with {walls}, {floor} and {main} {light}",
    "{A_place} featuring {list3}",
]
_OUTDOOR_TEMPLATES = [
    "{A_place} with {list3} {light}",
    "{A_place} {light}, {list2}",
    "{Main} and {other} in {a_place} {light}",
    "A photo of {a_place} with {list2} under a {sky} sky",
]
_FREE_TEMPLATES = [
    "{Phrase} with {list2}",
    "{Phrase} with {main}, {light}",
    "{Phrase}, {list2}, {light}",
    "{Phrase} with {list3}",
    "{Phrase} in {colour} and {colour2}, {light}",
    "{Phrase}, {colour} tones, {light}, {main}",
]
_PLAIN_TEMPLATES = ["{A_place} with {main}", "{A_place}", "{Place}"]
_PLAIN_FREE_TEMPLATES = ["{Phrase} with {main}", "{Phrase}, {light}", "{Phrase}"]


class GrammarGenerator:
    """Writes captions from sentence templates and the renderer's vocabulary.

    The k-th caption depends on its keyword and seed alone, so batches may be cut anywhere.
    """

    name: ClassVar[str] = "grammar"

    def __init__(self, settings: GrammarPrompts | None = None, device: str = "auto", max_characters: int = 150) -> None:
        self.max_characters = max_characters

    def generate(
        self, keywords: Sequence[str], template: str, seeds: Sequence[int], vary: VaryConfig | None = None
    ) -> list[str]:
        """One caption per keyword; `template` is a request to a language model and has no use here."""
        pairs = zip(keywords, seeds, strict=True)
        return [self.caption(keyword, random.Random(seed), vary) for keyword, seed in pairs]

    def caption(self, keyword: str, rng: random.Random, vary: VaryConfig | None = None) -> str:
        """A caption of at most `max_characters`, unless the keyword alone is longer."""
        phrase, family = readable_keyword(keyword), meaning_of(keyword).captioned
        free = is_free_text(phrase) or family.abstract
        templates = _FREE_TEMPLATES if free else _OUTDOOR_TEMPLATES if family.outdoor else _ROOM_TEMPLATES
        # Long keywords leave no room for a rich sentence: try a few, then plainer ones.
        plainer = _PLAIN_FREE_TEMPLATES if free else _PLAIN_TEMPLATES
        rich = [_choose_template(rng, templates, vary) for _ in range(4)]
        choices = [template for template in rich if template] + plainer
        for template in choices:
            if free and has_word(phrase, "with"):  # "a bar with lamps, two stools", not "with lamps with two stools"
                template = template.replace("} with {", "}, {", 1)
            text = template.format_map(_Slots(phrase, family, rng, vary))
            if len(text) <= self.max_characters:
                return text
        return text

    def details(self, keyword: str, rng: random.Random, vary: VaryConfig | None = None) -> str:
        """Things to ask a language model for, e.g. `a red velvet bed and two oak chairs at dusk`."""
        slots = _Slots(readable_keyword(keyword), meaning_of(keyword).captioned, rng, vary)
        number = draw(rng, sorted(LISTS), vary.objects) if vary and vary.objects else 2
        style = slots.style() if vary and vary.style else ""
        return f"{LISTS[number or 2]} {{light}}".format_map(slots) + (f", {style} style" if style else "")


def _choose_template(rng: random.Random, templates: Sequence[str], vary: VaryConfig | None) -> str | None:
    """None if no template names a number of objects that may be drawn."""
    if vary is None or not vary.objects:
        return rng.choice(templates)
    by_number: dict[int, list[str]] = {}
    for template in templates:
        by_number.setdefault(_named(template), []).append(template)
    number = draw(rng, [number for number in sorted(by_number) if number], vary.objects)
    return None if number is None else rng.choice(by_number[number])


def _named(template: str) -> int:
    """How many different objects a template names."""
    slots = re.findall(r"\{(\w+)\}", template.lower())
    return sum({"main": 1, "other": 1, "list2": 2, "list3": 3}.get(slot, 0) for slot in slots)


class _Slots(dict[str, str]):
    """Fills a template's slots on demand, so that each slot is drawn once and only if it is used."""

    def __init__(self, phrase: str, family: Family, rng: random.Random, vary: VaryConfig | None = None) -> None:
        super().__init__()
        self.vary = vary or VaryConfig()
        self.phrase, self.family, self.rng = phrase, family, rng
        self.colours = ordered(rng, vocabulary_words("colours"), self.vary.colour)
        said = phrase.lower()
        names = [name for name in family.objects if name != family.main and not has_word(said, name)]
        self.objects = rng.sample(names, len(names))
        if family.main not in ("floor", "sky") and not has_word(said, family.main):
            self.objects.insert(0, family.main)
        self.lit = any(has_word(said, word) for word in vocabulary_words("light"))

    def __missing__(self, slot: str) -> str:
        value = str(getattr(self, f"_{slot.lower()}")())
        return _capital(value) if slot[0].isupper() else value

    def _phrase(self) -> str:
        return self.phrase

    def _place(self) -> str:
        return self.phrase

    def _a_place(self) -> str:
        return with_article(f"{self._adjective()}{self.phrase}")

    def _adjective(self) -> str:
        plain = self.family.outdoor or any(has_word(self.phrase.lower(), style) for style in vocabulary_words("styles"))
        manner: tuple[list[str], Weights] = (_MANNERS, {})
        decor = manner if plain else (DECOR, self.vary.style)
        light = ([] if self.lit else LIGHT_ADJECTIVES, self.vary.light)
        words, weights = self.rng.choice([decor, decor, (_SIZES, {}), manner, light])
        word = draw(self.rng, words, weights) if words else None
        if not word or has_word(self.phrase.lower(), word):
            return ""
        self.lit = self.lit or word in vocabulary_words("light")
        return f"{word} "

    def _light(self) -> str:
        # Two lights in one caption contradict each other ("a moonlit street at noon").
        phrase = None if self.lit else draw(self.rng, LIGHT_PHRASES, self.vary.light)
        if phrase is None:
            return with_article(f"{self._colour()} {self.rng.choice(['mood', 'palette', 'accent'])}", lead="with")
        self.lit = True
        return phrase

    def style(self) -> str:
        return draw(self.rng, DECOR, self.vary.style) or ""

    def _colour(self) -> str:
        if not self.colours:  # few may be drawn, so they come again
            self.colours = ordered(self.rng, vocabulary_words("colours"), self.vary.colour)
        return self.colours.pop()

    _colour2 = _colour

    def _sky(self) -> str:
        self.lit = True
        return draw(self.rng, _NATURAL_COLOURS["sky"], self.vary.colour) or "clear"

    def _walls(self) -> str:
        return f"{self._surface('wall')} walls"

    def _floor(self) -> str:
        return with_article(f"{self._surface('floor')} floor")

    _a_floor = _floor

    def _surface(self, part: str) -> str:
        colour, material = self._colour(), draw(self.rng, SURFACES[part], self.vary.material)
        return self.rng.choice([colour, material, f"{colour} {material}"] if material else [colour])

    def _main(self) -> str:
        return self._object()

    _other = _main

    def _list2(self) -> str:
        return f"{self._object()} and {self._object()}"

    def _list3(self) -> str:
        return f"{self._object()}, {self._object()} and {self._object()}"

    def _object(self) -> str:
        """The next object with its count, colour and material, e.g. `two blue velvet armchairs`."""
        name = self.objects.pop(0) if self.objects else "lamp"
        shown = self.rng.choice([name, name, *_OTHER_NAMES.get(name, [])])
        described = " ".join([*self._description(name), shown])
        if name in _UNCOUNTABLE or (shown.endswith("s") and name != "glass"):
            return described
        count = 1 if name in _SINGLE else self.rng.choices([1, 2, 3], [70, 22, 8])[0]
        return with_article(described) if count == 1 else f"{('two', 'three')[count - 2]} {plural(described)}"

    def _description(self, name: str) -> list[str]:
        if name in _COLOURLESS:
            return [self.rng.choice(["large", "small"])] if name in ("mirror", "window") else []
        natural, materials = _NATURAL_COLOURS.get(name), MATERIALS.get(name)
        colour = (draw(self.rng, natural, self.vary.colour) or "") if natural else self._colour()
        material = (draw(self.rng, materials, self.vary.material) or "") if materials else ""
        words = self.rng.choices([[colour, material], [colour], [material or colour]], [35, 45, 20])[0]
        return [word for word in words if word and word != name]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def with_article(noun_phrase: str, lead: str = "") -> str:
    """`a red bed`, `an oak desk`; none before a plural."""
    vowel = re.match(r"[aeiou]", noun_phrase, re.IGNORECASE) and not re.match(
        r"(uni|uti|eu|one)", noun_phrase, re.IGNORECASE
    )
    article = "" if is_plural(noun_phrase) else "an" if vowel else "a"
    return " ".join(part for part in (lead, article, noun_phrase) if part)
