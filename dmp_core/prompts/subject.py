"""What a caption must be about: its keyword, the keyword's head noun, or a cue of the place that it means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache

from dmp_core.errors import InputError
from dmp_core.keywords.english import has_word, readable_keyword, singular, without_accents
from dmp_core.keywords.meaning import meaning_of
from dmp_core.prompts.words import vocabulary_words, words_of

_STRAIGHT = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "."}
)
# Hidden characters are put into the private planes, where no rule about letters, marks or spaces knows them.
_FIRST_HIDDEN = 0xF0000
HIDDEN = "\U000f0000-\U0010ffff"

_PREPOSITION = re.compile(
    r"\b(?:of|at|in|on|with|without|by|under|over|among|from|near|beside|behind|between|for|to|into|inside|outside"
    r"|across|along|after|before|during|through|around)\b"
)
_AND = re.compile(r"\b(?:and|or)\b|[,;:&+/()]")
# What a picture is, how much of a thing there is, and when: heads of phrases that do not say what is seen.
_NO_SUBJECT = frozenset(
    words_of(
        "photo, photograph, picture, image, painting, drawing, sketch, print, illustration, rendering, render, poster, "
        "blueprint, woodcut, watercolour, watercolor, oil, pastel, charcoal, ink, pencil, view, scene, style, "
        "still, life, stack, pile, row, group, set, pair, collection, bunch, lot, interior, exterior, indoor, outdoor, "
        "inside, outside, night, day, dusk, dawn, sunset, sunrise, morning, afternoon, evening, noon, midnight, "
        "moonlight, daylight, light, colour, color, neon, art, noir, anime, impressionist, surreal, the, a, an"
    )
)


def plain(text: str) -> str:
    """With one form for each character, straight quotes and dashes, and no marks of emphasis."""
    return unicodedata.normalize("NFKC", text).translate(_STRAIGHT).replace("**", "").replace("`", "")


def phrase_of(keyword: str) -> str:
    """The keyword as it stands in captions."""
    return " ".join(plain(readable_keyword(keyword)).split())


def refuse_unusable(keywords: Mapping[str, Iterable[str]], max_characters: int) -> None:
    """Raises InputError that names all keywords which no caption can have in it, before any work is done for them.

    keywords: by the setting that gives them.
    """
    faults = [
        f"{field}: {_quoted(keyword)} {fault}"
        for field, given in keywords.items()
        for keyword in given
        if (fault := _fault(keyword, max_characters))
    ]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(f"{'; '.join(faults[:5])}{more}; write in a few words what the images should show")


def _fault(keyword: str, max_characters: int) -> str:
    phrase = phrase_of(keyword)
    if any(unicodedata.category(character) in ("Cc", "Cs", "Co") for character in keyword):
        return "contains control characters or other codes that are no text"
    if not any(unicodedata.category(character)[0] in "LNS" for character in phrase):
        return "names nothing: it has neither letters nor digits"
    if len(phrase) > max_characters:
        return f"has {len(phrase)} characters, and a caption at most {max_characters} (prompts.max_characters)"
    return ""


def _quoted(keyword: str) -> str:
    return repr(keyword if len(keyword) <= 60 else f"{keyword[:57]}...")


def hide(text: str, keyword: str) -> str:
    """`text` with every mention of the keyword, singular or plural, put out of the reach of rules; same length."""
    letters, places = _hiding_places(keyword)
    pattern, moved = _mention(phrase_of(keyword)), str.maketrans(letters, places)
    return pattern.sub(lambda match: match.group().translate(moved), text) if pattern else text


def show(text: str, keyword: str) -> str:
    """Takes back what `hide` did."""
    letters, places = _hiding_places(keyword)
    return text.translate(str.maketrans(places, letters))


@cache
def _hiding_places(keyword: str) -> tuple[str, str]:
    """The characters that a mention of the keyword may have, in either case, and what stands for each of them."""
    phrase = f"{phrase_of(keyword)} _-es"
    letters = sorted({*phrase, *phrase.lower(), *phrase.upper()})
    return "".join(letters), "".join(chr(_FIRST_HIDDEN + number) for number in range(len(letters)))


def keeps_subject(caption: str, keyword: str) -> bool:
    """Whether the caption has the keyword, its head noun in singular or plural, or a cue of its family.

    A keyword without a Latin letter is not looked for: a model may well translate it.
    """
    pattern, heads = _mention(phrase_of(keyword)), head_nouns(keyword)
    if not heads or (pattern and pattern.search(caption)):
        return True
    meaning, text = meaning_of(keyword), caption.lower()
    cues = [meaning.captioned.phrase, *meaning.captioned.cues] if meaning.known else []
    return not heads.isdisjoint(map(singular, _words(caption))) or any(has_word(text, cue) for cue in cues)


@cache
def head_nouns(keyword: str) -> frozenset[str]:
    """What the keyword names, as stems: `an oil painting of a city at sunset` → {"city"}.

    The last word of each part of the first phrase that says what is seen; without one, all of its words.
    """
    text = phrase_of(keyword).lower()
    for part in _PREPOSITION.split(text):
        heads = frozenset(singular(words[-1]) for piece in _AND.split(part) if (words := _naming_words(piece)))
        if heads:
            return heads
    return frozenset(singular(word) for word in _words(text) if word.isalpha())


def _naming_words(text: str) -> list[str]:
    colours = vocabulary_words("colours")
    words = _words(text)
    while words and (words[-1] in _NO_SUBJECT or words[-1] in colours or not words[-1].isalpha()):
        words.pop()
    return words


def _words(text: str) -> list[str]:
    """Latin words in lower case, without accents."""
    return [word.removesuffix("'s") for word in re.findall(r"[a-z0-9]+(?:'s)?", without_accents(text))]


@cache
def _mention(phrase: str) -> re.Pattern[str] | None:
    """The phrase in any case, however its words are joined, in singular or plural."""
    joined = r"[\s_-]*".join(re.escape(word) for word in re.split(r"[\s_]+", phrase) if word)
    return re.compile(rf"(?<!\w){joined}(?:e?s)?(?!\w)", re.IGNORECASE) if joined else None
