"""Raw completions, as language models really write them, and what is left of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.prompts import caption_key, clean_caption

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
def test_what_is_no_caption_is_dropped_with_a_reason(raw: str, reason: str) -> None:
    assert clean_caption(raw) == ("", reason)


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
