"""Ends of sentences, which a full stop alone does not mark: `St. Peter`, `U.S. office`, `No. 5`, `1. kitchen`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from dmp_core.prompts.words import words_of

_END = re.compile(r"[.!?]+[\"']?(?=\s|$)")
_SHORT = words_of(
    "st, ste, sta, mt, ft, dr, mr, mrs, ms, mme, mlle, messrs, prof, rev, hon, gen, capt, lt, sgt, sen, gov, pres, sr, "
    "jr, no, nos, nr, vs, dept, univ, inc, ltd, co, corp, bros, ave, blvd, rd, hwy, bldg, apt, approx, ca, cf, fig, "
    "vol, est, etc"
)
# A known short form, a single letter (initials, `e.g.`, `U.S.`), or a number that starts a line or follows `No.`.
_ABBREVIATED = re.compile(
    rf"(?:^|[^\w'])(?:{'|'.join(_SHORT)}|[^\W\d_])$|(?:^|\bno\.\s?|\bnos\.\s?)\d+$", re.IGNORECASE
)


def sentence_ends(text: str, short: Collection[str] = ()) -> Iterator[int]:
    """Positions after the last mark of each sentence; a full stop after an abbreviation does not end one.

    short: further abbreviations, in lower case and without the full stop.
    """
    for match in _END.finditer(text):
        stop, is_last = match.group()[0] == ".", not text[match.end() :].strip()
        if is_last or not (stop and is_abbreviated(text[: match.start()], short)):
            yield match.end()


def is_abbreviated(text: str, short: Collection[str] = ()) -> bool:
    """Whether a full stop after `text` would belong to its last word."""
    last = text.rsplit(maxsplit=1)[-1:]
    return _ABBREVIATED.search(text) is not None or bool(last and last[0].lower() in short)


def abbreviations(phrase: str) -> frozenset[str]:
    """Words of a keyword that are written with a full stop: `St. Peter church` → {"st"}."""
    return frozenset(word.rstrip(".").lower() for word in phrase.split() if word.rstrip(".") not in ("", word))
