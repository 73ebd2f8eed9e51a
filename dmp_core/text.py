"""Text of unknown origin (prompts, keywords, names of files and datasets), made safe for where it is shown."""

from __future__ import annotations

import html
import re

# Direction marks reorder what follows them on a screen; lone surrogates are bytes of names that are not UTF-8.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"([\\`*_\[\]~$])")


def plain(text: str) -> str:
    """One line that any terminal or document shows as it is: control characters become visible, `\\x1b`."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), " ".join(text.split()))


def markdown(text: str) -> str:
    """Text as a part of one Markdown line or table cell, without markup, HTML or a cell's end."""
    return _MARKDOWN.sub(r"\\\1", html.escape(plain(text), quote=False).replace("|", "&#124;"))


def markdown_code(text: str) -> str:
    """Text as inline code, also in a table."""
    return f"`{plain(text).replace('`', chr(39)).replace('|', '¦')}`"
