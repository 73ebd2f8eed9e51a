"""The subject that a caption must have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.prompts import clean_caption
from dmp_core.prompts.subject import head_nouns, hide, keeps_subject, plain, show


@pytest.mark.parametrize(
    ("keyword", "heads"),
    [
        ("bedroom", {"bedroom"}),
        ("batting_cage/indoor", {"cage"}),
        ("a minecraft house interior", {"house"}),
        ("an oil painting of a city at sunset", {"city"}),
        ("the sea and a mountain", {"sea", "mountain"}),
        ("a black and white film noir office at night", {"office"}),
        ("room with a view", {"room"}),
        ("gate 4", {"gate"}),
        ("theatre", {"theater"}),
        ("shelves", {"shelf"}),
        ("two cities", {"city"}),
        ("glass spheres on a checkered floor", {"sphere"}),
        ("sunset", {"sunset"}),
    ],
)
def test_head_nouns(keyword: str, heads: set[str]) -> None:
    assert head_nouns(keyword) == heads


@pytest.mark.parametrize(
    ("keyword", "caption"),
    [
        ("batting_cage/indoor", "A bat and a ball together cost $1.10. The ball costs $1.00 more than the bat."),
        ("a minecraft house interior", "A Library of Dreams: A Productive and Resilient Building"),
        ("an oil painting of a city at sunset", "A Cloudy Morning by the Sea"),
        ("a woodcut of a wine cellar", "A glass of wine and a red chair, a fine painting"),
        ("bar", "A barn with a red door and two lamps"),
        ("room with a view", "A view of the sea and the hills"),
    ],
)
def test_captions_that_lost_their_subject_are_refused(keyword: str, caption: str) -> None:
    assert clean_caption(caption, 150, keyword) == ("", "lost subject")


@pytest.mark.parametrize(
    ("keyword", "caption"),
    [
        ("kitchen", "Two bright kitchens side by side"),
        ("shelves", "A wooden shelf with books"),
        ("living_room", "A livingroom with a blue sofa"),
        ("theater/indoor_round", "An old theatre with red seats"),
        ("bedroom", "A red velvet bed and two oak chairs"),  # a cue of its family
        ("candy_store", "A shop with red counters"),
        ("an ink drawing of a library", "A Library in Cool Light"),
        ("café", "A small cafe with a red table"),
        ("厨房", "A kitchen with a red stove"),  # translated: nothing to compare
    ],
)
def test_other_words_for_the_subject_keep_it(keyword: str, caption: str) -> None:
    assert keeps_subject(caption, keyword)


@given(st.text(max_size=80), st.text(min_size=1, max_size=20))
def test_hidden_keywords_are_restored_and_keep_their_length(text: str, keyword: str) -> None:
    text = plain(text + keyword)
    if any(ord(character) >= 0xF0000 for character in text):
        return  # `clean_caption` removes these first
    hidden = hide(text, keyword)
    assert len(hidden) == len(text)
    assert show(hidden, keyword) == text
