"""Which samples are shown, and in which order."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from dmp_core.app.samples import Entry
from dmp_core.errors import InputError
from dmp_core.settings import shortened

EVERYTHING, IN_DATASET, LEFT_OUT = "all", "in the dataset", "left out"
"""Choices of the filter by gate, besides the gates themselves."""


@dataclass(frozen=True)
class Filter:
    """All that is set must hold; empty: anything."""

    split: str = ""
    keyword: str = ""
    word: str = ""
    """A whole word, or words, of the prompt, in any case."""
    gate: str = EVERYTHING
    score: str = ""
    """Orders the samples, those without it last; bounds apply to it."""
    low: float | None = None
    high: float | None = None
    highest_first: bool = False
    only_marked: bool = False


def chosen(entries: Iterable[Entry], by: Filter, marked: Container[str] = ()) -> list[Entry]:
    """The entries that pass, ordered by the score, or as they are."""
    passed = [entry for entry in entries if _passes(entry, by, marked)]
    if not by.score:
        return passed
    sign = -1 if by.highest_first else 1
    return sorted(passed, key=lambda entry: (by.score not in entry.scores, sign * entry.scores.get(by.score, 0)))


def _passes(entry: Entry, by: Filter, marked: Container[str]) -> bool:
    return (
        by.split in ("", entry.split)
        and by.keyword in ("", entry.keyword)
        and (not by.word.strip() or _has_words(entry.prompt, by.word))
        and _gate_fits(entry, by.gate)
        and _in_bounds(entry, by)
        and (not by.only_marked or entry.key in marked)
    )


def _has_words(prompt: str, words: str) -> bool:
    wanted = r"\s+".join(map(re.escape, words.split()))
    return re.search(rf"(?<!\w){wanted}(?!\w)", prompt, re.IGNORECASE) is not None


def _gate_fits(entry: Entry, gate: str) -> bool:
    if gate == EVERYTHING:
        return True
    if gate in (IN_DATASET, LEFT_OUT):
        return (entry.gate == "") == (gate == IN_DATASET)
    return entry.gate == gate


def _in_bounds(entry: Entry, by: Filter) -> bool:
    if not by.score or (by.low is None and by.high is None):
        return True
    value = entry.scores.get(by.score)
    return value is not None and (by.low is None or value >= by.low) and (by.high is None or value <= by.high)


def number_or_none(text: str) -> float | None:
    """A bound as it is typed; None if there is none. Raises InputError for other text."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise InputError(f"{shortened(text)}: not a number; type one such as 0.5, or nothing")
    return value


@dataclass(frozen=True)
class Choices:
    """What the filters offer, sorted."""

    splits: list[str]
    keywords: list[str]
    gates: list[str]
    scores: list[str]


def choices(entries: Sequence[Entry]) -> Choices:
    gates = {entry.gate for entry in entries} - {""}
    return Choices(
        splits=sorted({entry.split for entry in entries} - {""}),
        keywords=sorted({entry.keyword for entry in entries} - {""}),
        gates=[EVERYTHING, *([IN_DATASET, LEFT_OUT, *sorted(gates)] if gates else [])],
        scores=sorted({score for entry in entries for score in entry.scores}),
    )
