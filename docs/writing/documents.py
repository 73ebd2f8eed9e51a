"""Writes measured numbers into documents: the lines between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fill(document: str, name: str, text: str) -> None:
    """Replace the text between the markers. Raises ValueError if the document has none with this name."""
    path = ROOT / document
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    filled, count = marked.subn(lambda found: found[1] + text + found[2], path.read_text())
    if count != 1:
        raise ValueError(f"{path}: {count} places marked {name!r}, expected one")
    path.write_text(filled)
