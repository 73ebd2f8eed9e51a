"""One page of images and their captions, next to their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmp_core.report.build import page_environment


@dataclass(frozen=True)
class Entry:
    """One image with its caption, or why there is none."""

    key: str
    prompt: str
    keyword: str
    file: str = ""
    """Relative to the page."""
    reason: str = ""


def write_preview(folder: Path, title: str, lead: str, entries: Sequence[Entry]) -> Path:
    """Write the page into the folder of the images; returns its path."""
    page = folder / "index.html"
    text = page_environment().get_template("preview.html").render(title=title, lead=lead, entries=entries)
    page.write_text(text, encoding="utf-8")
    return page
