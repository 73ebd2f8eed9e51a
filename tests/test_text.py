"""Hostile text is shown as what it is, in Markdown, in HTML and on a terminal."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from dmp_core.text import markdown, markdown_code, one_line, plain

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1)) ![b](https://tracker/x.png)",
    "a | b | c",
    "bold **x** _y_ ~~z~~ `code` $m$",
    "&lt;b&gt;",
    "one\ntwo\r\n# head\n---\n- item",
    "\x1b[31mred\x1b[0m\x07\x00\x9b2J",
    "\u202egnp.exe\u2066",
    "lone \udcff surrogate",
    "back\\slash \\",
    "```\nfence",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_text_itself_in_one_cell(text: str) -> None:
    page = f"| a | b |\n|---|---|\n| {markdown(text)} | {markdown_code(text)} |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(page)
    cells = [token for token in tokens if token.type == "inline"][2:]
    assert len(cells) == 2
    first, second = (cell.children or [] for cell in cells)
    assert {token.type for token in first} == {"text"} or {token.type for token in first} <= {"text", "text_special"}
    assert "".join(token.content for token in first) == one_line(text)
    assert [token.type for token in second] == ["code_inline"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_shown_has_no_control_characters(text: str) -> None:
    assert one_line(text).isprintable()
    assert plain(text, keep="\r\n").replace("\n", "").replace("\r", "").isprintable()
    one_line(text).encode()


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("St. Peter’s church, 2nd floor", "キッチン", "café – a room", "नमस्ते", "👩\u200d🍳"):
        assert plain(text) == text
    assert markdown("St. Peter’s (old) church - No. 5!") == "St. Peter’s (old) church - No. 5!"
