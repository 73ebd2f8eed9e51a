"""From a language model's raw completion to a usable caption, or to the reason why it is unusable."""

from __future__ import annotations

import html
import re
import unicodedata
from itertools import pairwise

from dmp_core.keywords.english import readable_keyword
from dmp_core.prompts.language import count_words, is_english
from dmp_core.prompts.sentences import sentence_ends
from dmp_core.prompts.subject import HIDDEN, hide, keeps_subject, plain, show
from dmp_core.prompts.words import words_of

RULES = 2
"""Number of the rules below, for fingerprints. Version 1 also checked keywords, and did not check the subject."""
_LIST_MARK = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*•>]|#{1,6})\s+")
_LABEL = re.compile(
    r"^(?:(?:photo|image|sample|example|possible|suggested|my|the|a|short|final)\s+)*"
    r"(?:caption|description|title|answer|output|response|assistant|photo|image)\s*(?:\d+\s*)?:\s*",
    re.IGNORECASE,
)
# "Here is a caption for your photo:" and similar lines introduce the caption and are not part of it.
_LEAD_IN = re.compile(
    r"^(?:sure|certainly|of course|here(?:'s| is| are)|absolutely|okay)\b[^:\n]*[:!]\s*", re.IGNORECASE
)
_HASHTAGS = re.compile(r"(?:\s*#\w+)+\s*$")
_ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|\w+);", re.IGNORECASE)
_HIDDEN = re.compile(f"[{HIDDEN}]+")
# Not captions: the model refuses, talks about itself or its task, addresses somebody, or writes code or special tokens.
_NOT_A_CAPTION = re.compile(
    r"\b(?:I'm sorry|I am sorry|as an AI|language model|I cannot|I can't)\b"
    r"|\b(?:captions?|adjectives?|characters long|one (?:short )?sentence|the keyword|please|click|here (?:is|are))\b"
    r"|\b(?:I|I'm|I've|I'd|my|you|your|you'll|you're|we|our|let's)\b"
    r"|https?:|www\.|@\w|[<>{}\[\]|=\\\ufffd\u2581\u0120\u010a]",
    re.IGNORECASE,
)
# A text that ends in one of these is truncated.
_DANGLING = frozenset(
    words_of(
        "a, an, and, the, with, of, in, on, at, by, or, for, to, from, its, their, as, that, which, is, are, "
        "but, into, over, under, near, this, these, his, her, very, while, where, creating, featuring, "
        "including, has, have"
    )
)
_CLAUSE_END = re.compile(r"[,;:] | - ")
_MIN_WORDS = 3
_MIN_CLAUSES = 50  # characters that the whole clauses of an over-long sentence must have at least


def clean_caption(
    raw: str, max_characters: int = 150, keyword: str = "", *, check_language: bool = True
) -> tuple[str, str]:
    """(caption, reason): the caption, or "" and why it was refused.

    Reasons: `empty`, `over-long`, `not English`, `lost subject`, `repeats itself`, `no caption`.
    Rules look outside the keyword only: it was requested, in any language, and is never cut.
    An over-long text keeps its leading whole sentences if one fits, else the leading whole
    clauses of the first (a caption is a list of visible things, so that is acceptable).

    check_language: False for a generator that writes only English.
    """
    text = _single_line(raw, keyword)
    if _too_few_words(text, keyword):
        return "", "empty"
    if _NOT_A_CAPTION.search(text) or _has_control_characters(text):
        return "", "no caption"
    text = _whole_sentences(text, max_characters)
    if not text:
        return "", "over-long"
    reason = _objection(text, keyword, check_language)
    return ("", reason) if reason else (show(text, keyword), "")


def _objection(text: str, keyword: str, check_language: bool) -> str:
    """Why a whole caption, its keyword hidden, is unusable; "" if it is usable."""
    if _too_few_words(text, keyword) or _rambles(text):
        return "no caption"
    if check_language and not is_english(_HIDDEN.sub(" ", text)):
        return "not English"
    if _repeats(text, keyword):
        return "repeats itself"
    return "" if not keyword or keeps_subject(show(text, keyword), keyword) else "lost subject"


def same_by_first_rules(keyword: str, max_characters: int) -> bool:
    """Whether the first rules give the same for every caption of the grammar: it has the keyword in it, in English.

    So nothing in the keyword may look like the end of a sentence, a mark, a label, or another language, and nothing
    may be too long.
    """
    phrase = readable_keyword(keyword)
    words, (known, foreign) = re.findall(r"\w+", phrase.lower()), count_words(phrase)
    return (
        re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 ,'/-]{0,98}[A-Za-z0-9])?", phrase) is not None
        and not _NOT_A_CAPTION.search(phrase)
        and words[-1] not in _DANGLING
        and len(set(words)) >= 0.7 * len(words)
        and foreign <= known + 1  # the caption adds English words
        and max_characters >= 150
    )


def caption_key(caption: str) -> str:
    """Equal for captions that differ only in case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", caption).casefold()))


def _single_line(raw: str, keyword: str) -> str:
    """The first line with content, without marks, labels and quotes around it; the keyword in it is hidden."""
    text = hide(plain(_HIDDEN.sub("\ufffd", raw)), keyword)
    while (unescaped := hide(plain(_ENTITY.sub(_character, text)), keyword)) != text:
        text = unescaped
    for line in text.splitlines():
        line = _bare(line)
        if line and not line.endswith(":"):
            return line
    return ""


def _character(entity: re.Match[str]) -> str:
    return _HIDDEN.sub("\ufffd", html.unescape(entity.group()))


def _bare(line: str) -> str:
    """Removes prefixes and quotes repeatedly (`1. Caption: "A bed."` → `A bed.`)."""
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
    """The leading whole sentences that fit; if the first does not fit, its whole clauses that do."""
    fitting = [end for end in sentence_ends(text) if end <= max_characters]
    if fitting:  # text after the last full stop was truncated by the token limit
        return text[: fitting[-1]].strip()
    if len(text) > max_characters:
        text = text[: _last_clause(text, max_characters)]
    words = text.split()
    while words and words[-1].lower().strip(",;:-") in _DANGLING | {""}:
        words.pop()
    return " ".join(words).rstrip(",;:- ")


def _last_clause(text: str, max_characters: int) -> int:
    """End of the last whole clause that fits, or else of the keyword; 0 if neither is long enough."""
    least = min(_MIN_CLAUSES, max_characters // 2)
    clauses = [match.start() for match in _CLAUSE_END.finditer(text[:max_characters])]
    keywords = [match.end() for match in _HIDDEN.finditer(text) if match.end() <= max_characters]
    return next((ends[-1] for ends in (clauses, keywords) if ends and ends[-1] >= least), 0)


def _too_few_words(text: str, keyword: str) -> bool:
    """Fewer than three words, unless the keyword alone is long enough."""
    longest = max((len(match.group()) for match in _HIDDEN.finditer(text)), default=0)
    return longest < _MIN_CLAUSES and len(re.findall(r"[^\W\d_]+", show(text, keyword))) < _MIN_WORDS


def _has_control_characters(text: str) -> bool:
    return any(unicodedata.category(character).startswith("C") for character in _HIDDEN.sub("", text))


def _rambles(text: str) -> bool:
    """A loop: a word three times in a row, or fewer than half of the words distinct."""
    words = re.findall(r"\w+", text.lower())
    looping = any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))
    return looping or len(set(words)) < 0.5 * len(words)


def _repeats(text: str, keyword: str) -> bool:
    """Contains a sentence or a clause twice, or two or more words twice in a row."""
    ends = {*sentence_ends(text), *(match.end() for match in _CLAUSE_END.finditer(text))}
    parts = [tuple(_words(text[start:end], keyword)) for start, end in pairwise([0, *sorted(ends), len(text)])]
    said = [part for part in parts if len(part) > 1]
    words = _words(text, keyword)
    return len(set(said)) < len(said) or any(
        words[start : start + number] == words[start + number : start + 2 * number]
        for number in range(2, len(words) // 2 + 1)
        for start in range(len(words) - 2 * number + 1)
    )


def _words(text: str, keyword: str) -> list[str]:
    """Words in lower case; a mention of the keyword counts as one."""
    return [show(word, keyword).lower() for word in re.findall(rf"[{HIDDEN}]+|\w+", text)]
