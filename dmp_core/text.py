"""Escapes text of unknown origin (prompts, keywords, names of files and datasets) for display."""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from collections.abc import Iterable

_JOINERS = "\u200c\u200d"
"""Format characters that are part of words and emoji; others, such as a change of direction, are escaped."""
_MARKDOWN = re.compile(r"([\\`*_\[\]~$])")


def plain(text: str, keep: str = "") -> str:
    """Text that is safe for a terminal or page: control characters and invalid ones are escaped, as `\\x1b`.

    keep: control characters that stay, such as the end of a line.
    """
    if text.isprintable():
        return text
    kept = keep + _JOINERS
    return "".join(char if char in kept or not _is_control(char) else _spelled(char) for char in text)


def one_line(text: str) -> str:
    """`plain`, with each run of white space as one space."""
    return plain(" ".join(text.split()))


def markdown(text: str) -> str:
    """Text as a part of one Markdown line or table cell: no markup, no HTML, no end of the cell."""
    return _MARKDOWN.sub(r"\\\1", html.escape(one_line(text), quote=False).replace("|", "&#124;"))


def markdown_code(text: str) -> str:
    """Text as inline code, also in a table; backticks and bars, which would end it, are replaced by look-alikes."""
    return f"`{one_line(text).replace('`', chr(0x2BC)).replace('|', '¦')}`"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean X?` for a name that is close to a known one, to be put into an error; else nothing."""
    found = difflib.get_close_matches(str(name)[:100], [one for one in known if one != name], n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def has_text(text: str) -> bool:
    """Whether it has a letter or a digit: a file that a power cut has emptied or filled with zeros has none."""
    return any(char.isalnum() for char in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # Python's code for a byte of a name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
