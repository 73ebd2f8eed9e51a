"""Whether a whole caption is English: it may begin in English and switch to another language."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from dmp_core.keywords.meaning import families
from dmp_core.prompts.words import vocabulary_words, words_of

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_ENGLISH = frozenset(
    words_of(
        "the, a, an, and, with, of, in, on, at, by, is, are, to, from, its, under, beside, near, over, into, "
        "for, as, that, this, has, have, one, two, three, lit, light, lighting, room, style, photo, painting, "
        "walls"
    )
)
# Function words of the languages that a multilingual model may switch to; without those shared with English.
_FOREIGN = frozenset(
    words_of(
        "der, die, das, und, ein, eine, einem, mit, auf, ist, von, im, le, la, les, un, une, et, avec, des, "
        "dans, du, est, sur, el, los, las, una, con, y, en, por, del, il, di, e, che, nel, uno, o, os, um, "
        "uma, com, para, het, een, van, op, de"
    )
)
_LABELS = ("en", "pcm")  # plain lists of coloured things are sometimes classified as Nigerian Pidgin
# Minimum probabilities of English, of whole texts and of a number of words in a row: a few unlikely words reveal a
# half-translated caption. English captions of the grammar and of SmolLM2 (1,000 in all) are above all of them.
_LEAST, _LEAST_OF_FEW, _LEAST_AMONG_FOREIGN = 0.3, 0.05, 0.9
_LEAST_IN_A_ROW = {4: 0.005, 6: 0.03}


def is_english(text: str) -> bool:
    """Letters, function words and, if the text is long enough, a language identifier (py3langid) all agree.

    Texts without letters pass.
    """
    letters = [character for character in text if character.isalpha()]
    if sum(character.isascii() for character in letters) < 0.95 * len(letters):
        return False
    known, foreign = count_words(text)
    if letters and known <= foreign:
        return False
    words = text.split()
    least = _LEAST_AMONG_FOREIGN if foreign else _LEAST if len(words) > 4 else _LEAST_OF_FEW
    return len(words) < 3 or (_probability(words) >= least and not _slips(words))


def count_words(text: str) -> tuple[int, int]:
    """Number of known English words, and of function words of eight other languages."""
    words = re.findall(r"[a-z]+", text.lower())
    english = sum(word in _ENGLISH or word in _vocabulary_words() for word in words)
    return english, sum(word in _FOREIGN for word in words)


def _slips(words: list[str]) -> bool:
    """Whether a few words in a row are probably not English."""
    return any(
        _probability(words[start : start + number]) < least
        for number, least in _LEAST_IN_A_ROW.items()
        for start in range(len(words) - number + 1)
    )


def _probability(words: list[str]) -> float:
    """Probability that the words are English."""
    found = dict(_identifier().rank(" ".join(words)))
    return float(sum(found.get(label, 0.0) for label in _LABELS))


@cache
def _identifier() -> LanguageIdentifier:
    """Loaded when the first caption of a language model is checked; takes a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _vocabulary_words() -> frozenset[str]:
    names = [name for family in families().values() for name in [family.phrase, *family.objects]]
    names += vocabulary_words("colours") + vocabulary_words("light")
    return frozenset(word for name in names for word in name.split())
