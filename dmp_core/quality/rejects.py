"""Samples that a person rejects: `rejects.txt`, one key per line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping

from dmp_core.errors import InputError
from dmp_core.quality.settings import QualityConfig
from dmp_core.reading import read_text, shown
from dmp_core.settings import shortened

REJECTS_FILE = "rejects.txt"
"""The name under which `dmp app` writes it."""
_KEY = re.compile(r"(.+)-([0-9]{8})")


def with_rejects(quality: QualityConfig, counts: Mapping[str, int]) -> QualityConfig:
    """The same gates with the keys of the file among `rejects`, sorted.

    counts: split → its number of samples. Raises InputError for a file that cannot be read, and for a key that is no
    sample of these splits.
    """
    if quality.rejects is None and quality.rejects_file is None:
        return quality

    def known(key: str) -> bool:
        found = _KEY.fullmatch(key)
        return found is not None and int(found[2]) < counts.get(found[1], 0)

    given = [("quality.rejects", key) for key in quality.rejects or ()]
    if quality.rejects_file is not None:
        given += _read(quality.rejects_file, known)
    for place, key in given:
        if not known(key):
            samples = ", ".join(f"{split}-00000000 to {count - 1:08d}" for split, count in counts.items())
            raise InputError(f"{place}: {shortened(key)} is no sample of this configuration ({samples}); remove it")
    return quality.model_copy(update={"rejects": sorted({key for _, key in given}) or None, "rejects_file": None})


def _read(path: str, known: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """(file and line, key)."""
    if not os.path.lexists(path):
        raise InputError(f"quality.rejects_file: {shown(path)} does not exist; `dmp app` writes it, or set it to null")
    for number, key in listed(read_text(path), known):
        yield f"{shown(path)}, line {number}", key


def listed(text: str, known: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    """(number of the line, key) of each line that is neither blank nor a comment.

    known: whether a text is a key; in others a comment may follow the key, after ` #`.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if key := _key(line, known):
            yield number, key


def marked(text: str, key: str, reject: bool, known: Callable[[str], bool]) -> str:
    """The file's text with or without this key; all other lines stay as they are."""
    lines = [line for line in text.splitlines() if _key(line, known) != key]
    return "".join(f"{line}\n" for line in [*lines, *[key] * reject])


def _key(line: str, known: Callable[[str], bool]) -> str:
    line = line.strip()
    if known(line):
        return line
    return "" if line.startswith("#") else line.partition(" #")[0].strip()
