"""Raw completions, as language models really write them, and the resulting captions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.prompts import caption_key, clean_caption, read_keywords
from dmp_core.prompts.cleanup import same_by_first_rules
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.keywords import keyword_files

GOOD = "A cozy bedroom with a red velvet bed and two white pillows."


@pytest.mark.parametrize(
    "raw",
    [
        GOOD,
        f"  {GOOD}\n\n",
        f'"{GOOD}"',
        f"Caption: {GOOD}",
        f'Photo caption: "{GOOD}"',
        f"1. {GOOD}\n2. A blue bedroom with a lamp.",
        f'1. Caption: "{GOOD}"',
        f"- {GOOD}",
        f"Here is a caption for the photo:\n\n{GOOD}",
        f'Sure! Here\'s a description: "{GOOD}"',
        f"**{GOOD}**",
        f"“{GOOD}”",
        f'"{GOOD}" This text is rich in detail.',
        f"{GOOD} #bedroom #cozy",
        f"{GOOD} The walls are",
        f"{GOOD}\nI hope that you like it!",
        "A cozy bedroom  with a red velvet bed\u00a0and two white pillows.",
    ],
)
def test_the_caption_is_found(raw: str) -> None:
    assert clean_caption(raw) == (GOOD, "")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("Caption:", "empty"),
        ("...", "empty"),
        ("A bedroom.", "empty"),
        ("I'm sorry, but I cannot describe the photo.", "no caption"),
        ("As an AI language model, there is no photo to see.", "no caption"),
        ("The caption should contain many adjectives.", "no caption"),
        ("Welcome to your new bedroom with a red bed.", "no caption"),
        ("A bed with a bed with a bed with a bed with a bed.", "no caption"),
        ("A bed bed bed in the room.", "no caption"),
        ("<div>A red bed in the room</div>", "no caption"),
        ("Ein rotes Bett mit zwei weißen Kissen und einer Lampe.", "not English"),
        ("Une chambre avec un lit rouge et des rideaux.", "not English"),
        ("Una habitación con una cama y el sol.", "not English"),
        ("一间卧室有一张红色的床。 红色的床。 一间卧室。", "not English"),
        ("Спальня с красной кроватью и лампой.", "not English"),
        ("Lorem ipsum dolor sit amet consectetur", "not English"),
        ("A bedroom " + "with a very long winded description that never comes to its end " * 4, "over-long"),
    ],
)
def test_texts_that_are_no_captions_are_dropped_with_a_reason(raw: str, reason: str) -> None:
    assert clean_caption(raw) == ("", reason)


@pytest.mark.parametrize(
    ("keyword", "raw"),
    [
        ("St. Peter church", "A photo of a sunny St. Peter church with two lamps"),
        ("church", "A photo of a sunny St. Peter church with two lamps"),
        ("office", "The office of Dr. Smith, Mr. J. R. Jones and Prof. Lee in the U.S. with a red desk"),
        ("kitchen", "A kitchen with tables, e.g. a red one, and chair No. 5 in approx. three colours"),
        ("1. kitchen", "1. kitchen with a red stove"),
        ("my room", "A photo of my room with a red bed"),
        ("captions", "A wall of captions with a lamp"),
        ("I-beam hall", "Two red lamps in an I-beam hall"),
        ("R&amp;D lab", "A R&amp;D lab with a white table"),
    ],
)
def test_nothing_is_cut_or_refused_for_its_keyword_or_an_abbreviation(keyword: str, raw: str) -> None:
    assert clean_caption(raw, 150, keyword) == (raw, "")


def test_marks_of_refusals_count_only_outside_the_keyword() -> None:
    assert clean_caption("I love my room with a bed", 150, "my room") == ("", "no caption")
    assert clean_caption("This is my bed in my room", 150, "my room") == ("", "no caption")


def test_sentences_still_end() -> None:
    caption, _ = clean_caption("A St. Peter church in the evening. A lamp is", 150, "St. Peter church")
    assert caption == "A St. Peter church in the evening."
    assert clean_caption("A red lamp in the church of St. Peter.", 150, "church")[0].endswith("St. Peter.")


def test_an_over_long_sentence_is_cut_after_its_keyword_if_nowhere_else() -> None:
    keyword = "large quiet reading room of an old town library in the north"
    caption, _ = clean_caption(f"A {keyword} with " + "tall green plants and " * 6 + "lamps", 100, keyword)
    assert caption == f"A {keyword}"


@pytest.mark.parametrize(
    "raw",
    [
        "Sebuah bedroom dengan bed besar dan kursi kayu",
        "Una bedroom con una cama grande y dos lámparas",
        "A bedroom con una cama roja y dos sillas de madera",
        "A bedroom with a red bed dan kursi kayu merah besar",
        "A cozy bedroom with a red bed and two white pillows, dan kursi kayu di dekat jendela",
        "A bedroom with a red bed und zwei Kissen",
        "A bedroom with a red bed et deux oreillers blancs",
        "Bedroom met blauwe bank",
        "En bedroom med ett stort bord och fyra stolar",
        "Duza bedroom z drewnianym stolem i krzeslami",
        "Kitchen besar bedroom dengan lampu",
    ],
)
def test_other_languages_do_not_pass_for_their_keyword(raw: str) -> None:
    assert clean_caption(raw, 150, "bedroom")[1] in ("not English", "no caption")  # Polish has the word "i"


@pytest.mark.parametrize(
    ("keyword", "raw"),
    [
        ("Küche", "A tidy Küche with a red stove and two lamps"),
        ("厨房", "A tidy 厨房 with a red stove and two lamps"),
        ("salon de thé", "A tidy salon de thé with a red table and two lamps"),
        ("a van gogh painting of a street", "A van gogh painting of a street with two houses at night"),
    ],
)
def test_a_keyword_in_another_language_is_accepted(keyword: str, raw: str) -> None:
    assert clean_caption(raw, 150, keyword) == (raw, "")


@pytest.mark.parametrize(
    "raw",
    [
        "A bedroom with a small bed</s>",
        "<s>A bedroom with a small bed",
        "A bedroom with a small bed<|endoftext|>",
        "A bedroom with a small bed &lt;/s&gt;",
        "A bedroom with a small bed &amp;lt;pad&amp;gt;",
        "A bedroom with a small bed [INST]",
        "A\u0120bedroom with a small bed",
        "A bedroom with a \ufffd small bed",
        "A bedroom with a \x07small bed",
        "A bedroom with a \u200bsmall bed",
        "A bedroom with a \x1b[31mred bed",
        "A bedroom with a small bed \U000f0041",
    ],
)
def test_special_tokens_and_control_characters_are_no_captions(raw: str) -> None:
    assert clean_caption(raw, 150, "bedroom") == ("", "no caption")


def test_entities_are_decoded() -> None:
    raw = "A child&#39;s bedroom with black &amp;amp; white&nbsp;walls and a red lamp"
    assert clean_caption(raw, 150, "bedroom") == ("A child's bedroom with black & white walls and a red lamp", "")


@pytest.mark.parametrize(
    "raw",
    [
        "A bedroom with a red bed. A bedroom with a red bed.",
        "A bedroom with a red bed. A lamp is lit. a Bedroom with a red bed!",
        "A bedroom with a red bed, a lamp, a bedroom with a red bed, a lamp",
        "A bedroom with a red bed A bedroom with a red bed",
    ],
)
def test_a_repeated_sentence_is_refused(raw: str) -> None:
    assert clean_caption(raw, 150, "bedroom")[1] in ("repeats itself", "no caption")


def test_the_grammars_captions_pass_both_versions_of_the_rules() -> None:
    """Captions that keep their fingerprint do not change: the text as written, in the first round."""
    grammar = GrammarGenerator()
    for name in keyword_files():
        for keyword in read_keywords(name):
            assert same_by_first_rules(keyword, 150), keyword
            raw = grammar.caption(keyword, Random(keyword))
            assert clean_caption(raw, 150, keyword, check_language=False) == (raw, "")
    assert not any(
        same_by_first_rules(keyword, 150) for keyword in ("St. Peter church", "my room", "Küche", "walk in", "a: b")
    )
    assert not same_by_first_rules("kitchen", 80)


def test_over_long_texts_keep_whole_sentences() -> None:
    sentences = "A red bed stands by the wall. A lamp is lit. " + "The room has a very long tail of words. " * 5
    assert clean_caption(sentences, 50) == ("A red bed stands by the wall. A lamp is lit.", "")


def test_an_over_long_sentence_keeps_whole_clauses() -> None:
    text = (
        "A bedroom filled with soft, warm light, reflecting the glow of a vintage house, with a few lamps and a "
        "canvas on the walls, adorned with a marble floor and a glass table that goes on and on."
    )
    caption, _ = clean_caption(text, 150)
    assert caption == text.split(", adorned")[0]


def test_an_unfinished_sentence_loses_its_dangling_words() -> None:
    assert clean_caption("A red bed in the room with the") == ("A red bed in the room", "")
    assert clean_caption("A red bed, a lamp, and") == ("A red bed, a lamp", "")


@given(st.text(max_size=400), st.integers(20, 200))
def test_any_text_gives_a_caption_within_bounds_or_a_reason(raw: str, limit: int) -> None:
    caption, reason = clean_caption(raw, limit)
    assert bool(caption) != bool(reason)
    assert len(caption) <= limit
    assert "\n" not in caption
    assert caption == caption.strip()


def test_keys_ignore_case_punctuation_and_spacing() -> None:
    assert caption_key("A red bed, two pillows.") == caption_key(" a Red  bed two PILLOWS!")
    assert caption_key("A red bed") != caption_key("A blue bed")
