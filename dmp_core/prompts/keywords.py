"""Keyword lists: those that come with the package, and your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dmp_core.errors import InputError
from dmp_core.reading import read_text, shown
from dmp_core.resources import manifest_path
from dmp_core.text import did_you_mean


def keyword_files() -> list[str]:
    """Names of the keyword lists that are shipped with the package."""
    return sorted(path.name for path in manifest_path("keywords").glob("*.txt"))


def read_keywords(source: str | Path) -> list[str]:
    """Keywords of one list, in file order, repeats removed.

    `source` is a path or the name of a list in `data_manifests/keywords/`; a path
    that exists takes precedence. Lines that start with `#` and blank lines are skipped.
    UTF-8, or UTF-16 and 32 with a byte-order mark.
    Raises InputError that names the file when it is missing, not text, or empty.
    """
    path = _locate(source)
    text = read_text(path)
    lines = (" ".join(line.split()) for line in text.splitlines())
    keywords = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not keywords:
        raise InputError(
            f"{shown(path)}: no keyword in it; write one keyword per line, or use another list: {_available()}"
        )
    return keywords


def split_keywords(split_name: str, keywords: Sequence[str], keywords_file: str | None) -> list[str]:
    """The keywords of a split, from its list or its file. Raises InputError on blank ones."""
    if keywords_file is not None:
        return read_keywords(keywords_file)
    cleaned = list(dict.fromkeys(" ".join(keyword.split()) for keyword in keywords))
    if not cleaned or "" in cleaned:
        raise InputError(f"splits.{split_name}.keywords: a keyword is blank; write what the images should show")
    return cleaned


def _locate(source: str | Path) -> Path:
    for candidate in (Path(source), manifest_path("keywords") / Path(source).name):
        if os.path.isfile(candidate) and (candidate == Path(source) or Path(source).parent == Path(".")):
            return candidate
    meant = did_you_mean(Path(source).name, keyword_files())
    raise InputError(f"keyword file {shown(repr(str(source)))} not found; {_available()}{meant}")


def _available() -> str:
    return f"give a path, or one of the lists that come with the package: {', '.join(keyword_files())}"
