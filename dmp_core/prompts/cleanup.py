"""From a language model's raw completion to a usable caption, or to the reason why it is none."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from dmp_core.prompts.grammar import Vocabulary, words_of

_STRAIGHT = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "."}
)
_LIST_MARK = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*•>]|#{1,6})\s+")
_LABEL = re.compile(
    r"^(?:(?:photo|image|sample|example|possible|suggested|my|the|a|short|final)\s+)*"
    r"(?:caption|description|title|answer|output|response|assistant|photo|image)\s*(?:\d+\s*)?:\s*",
    re.IGNORECASE,
)
# "Here is a caption for your photo:" and its like introduce the caption; they are not one.
_LEAD_IN = re.compile(
    r"^(?:sure|certainly|of course|here(?:'s| is| are)|absolutely|okay)\b[^:\n]*[:!]\s*", re.IGNORECASE
)
_HASHTAGS = re.compile(r"(?:\s*#\w+)+\s*$")
_SENTENCE_END = re.compile(r"[.!?]+[\"']?(?=\s|$)")
# Not captions: the model refuses, talks about itself or its task, addresses somebody, or writes code.
_NOT_A_CAPTION = re.compile(
    r"\b(?:I'm sorry|I am sorry|as an AI|language model|I cannot|I can't)\b"
    r"|\b(?:captions?|adjectives?|characters long|one (?:short )?sentence|the keyword|please|click|here (?:is|are))\b"
    r"|\b(?:I|I'm|I've|I'd|my|you|your|you'll|you're|we|our|let's)\b"
    r"|https?:|www\.|@\w|<\w+>|[{}\[\]|=]",
    re.IGNORECASE,
)
# A text that ends in one of these was cut off.
_DANGLING = frozenset(
    words_of(
        "a, an, and, the, with, of, in, on, at, by, or, for, to, from, its, their, as, that, which, is, are, "
        "but, into, over, under, near, this, these, his, her, very, while, where, creating, featuring, "
        "including, has, have"
    )
)
_ENGLISH = frozenset(
    words_of(
        "the, a, an, and, with, of, in, on, at, by, is, are, to, from, its, under, beside, near, over, into, "
        "for, as, that, this, has, have, one, two, three, lit, light, lighting, room, style, photo, painting, "
        "walls"
    )
)
# Function words of the languages that a multilingual model slips into; those shared with English left out.
_FOREIGN = frozenset(
    words_of(
        "der, die, das, und, ein, eine, einem, mit, auf, ist, von, im, le, la, les, un, une, et, avec, des, "
        "dans, du, est, sur, el, los, las, una, con, y, en, por, del, il, di, e, che, nel, uno, o, os, um, "
        "uma, com, para, het, een, van, op, de"
    )
)
_MIN_WORDS = 3
_MIN_CLAUSES = 50  # characters that the whole clauses of an over-long sentence must at least make


def clean_caption(raw: str, max_characters: int = 150) -> tuple[str, str]:
    """(caption, reason): the caption, or "" and why it was dropped (`empty`, `over-long`, `not English`, `no caption`).

    An over-long text keeps its leading whole sentences if one fits, else the leading whole
    clauses of the first (a caption is a list of things seen: it bears that). English is judged
    by script and words: at least 95 % of the letters are ASCII, and known English words
    (function words and the renderer's vocabulary) outnumber the function words of eight
    other European languages. That is crude but cheap, and errs towards dropping.
    """
    text = _single_line(raw)
    if len(re.findall(r"[^\W\d_]+", text)) < _MIN_WORDS:
        return "", "empty"
    if _NOT_A_CAPTION.search(text):
        return "", "no caption"
    text = _whole_sentences(text, max_characters)
    if not text:
        return "", "over-long"
    if not is_english(text):
        return "", "not English"
    if _rambles(text) or len(text.split()) < _MIN_WORDS:
        return "", "no caption"
    return text, ""


def caption_key(caption: str) -> str:
    """What two captions share when they differ in case, punctuation and spacing alone."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", caption).casefold()))


def is_english(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    if not letters or sum(character.isascii() for character in letters) < 0.95 * len(letters):
        return False
    words = re.findall(r"[a-z]+", text.lower())
    english = sum(word in _ENGLISH or word in _vocabulary_words() for word in words)
    return english > sum(word in _FOREIGN for word in words)


@cache
def _vocabulary_words() -> frozenset[str]:
    vocabulary = Vocabulary.load()
    names = [name for family in vocabulary.families.values() for name in [family["phrase"], *family["objects"]]]
    return frozenset(word for name in [*names, *vocabulary.colours, *vocabulary.light] for word in name.split())


def _single_line(raw: str) -> str:
    """The first line that says something, without marks, labels and quotes around it."""
    text = unicodedata.normalize("NFKC", raw).translate(_STRAIGHT).replace("**", "").replace("`", "")
    for line in text.splitlines():
        line = _bare(line)
        if line and not line.endswith(":"):
            return line
    return ""


def _bare(line: str) -> str:
    """Peels prefixes and quotes off until nothing more comes off (`1. Caption: "A bed."` → `A bed.`)."""
    previous = None
    line = " ".join(line.split())
    while line != previous:
        previous = line
        line = _LIST_MARK.sub("", line)
        line = _LEAD_IN.sub("", line)
        line = _LABEL.sub("", line)
        line = _HASHTAGS.sub("", line).strip(" *_")
        quoted = re.match(r'^"([^"]+)"?', line)
        line = quoted.group(1).strip() if quoted else line.removesuffix('"').strip()
    return line


def _whole_sentences(text: str, max_characters: int) -> str:
    """The leading whole sentences that fit; of a first sentence that does not, the whole clauses that do."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    fitting = [end for end in ends if end <= max_characters]
    if fitting:  # what follows the last full stop was cut off by the token limit
        return text[: fitting[-1]].strip()
    if len(text) > max_characters:
        clauses = [match.start() for match in re.finditer(r"[,;:] | - ", text[:max_characters])]
        text = text[: clauses[-1]] if clauses and clauses[-1] >= _MIN_CLAUSES else ""
    words = text.split()
    while words and words[-1].lower().strip(",;:-") in _DANGLING | {""}:
        words.pop()
    return " ".join(words).rstrip(",;:- ")


def _rambles(text: str) -> bool:
    """A loop: a word three times running, or fewer than half of the words distinct."""
    words = re.findall(r"\w+", text.lower())
    looping = any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))
    return looping or len(set(words)) < 0.5 * len(words)
