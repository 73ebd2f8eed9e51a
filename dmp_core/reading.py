"""Safe reading of user-provided files: no pipes or devices, nothing larger than memory, text in any Unicode encoding.

This module reads bytes and text, and names files in messages; it does not interpret their content.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from dmp_core.errors import InputError
from dmp_core.text import plain

MOST_BYTES = 2**31
"""Of one image or array; 89 million pixels of 16 bits and four channels, uncompressed, are a third of it."""
MOST_TEXT = 2**28
"""Of one text file; one line of metadata per image for a million images is less."""

# The longer byte-order marks first: that of UTF-32 starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def shown(name: str | PurePath) -> str:
    """A file's name for a message, on one line: control characters, and bytes that are not UTF-8, as escapes."""
    return plain(str(name))


def is_utf8(name: str) -> bool:
    """Whether a file's name is text: Python decodes other bytes to lone surrogates, which files cannot store."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def regular_size(path: str | Path, most: int = MOST_BYTES) -> int:
    """Size of a regular file in bytes, without opening it: opening a pipe hangs, and a device never ends.

    Raises InputError if it is of another kind, or larger than `most`.
    """
    with _reasons(path):
        entry = os.stat(path)
    if not stat.S_ISREG(entry.st_mode):
        kind = "a folder" if stat.S_ISDIR(entry.st_mode) else "a pipe, socket or device"
        raise InputError(f"{shown(path)}: {kind}, not a file; copy the content into a file, or take it away")
    if entry.st_size > most:
        raise InputError(f"{shown(path)}: {entry.st_size / 1e6:,.0f} MB; {most / 1e6:,.0f} MB at most are read")
    return entry.st_size


def read_file(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises InputError as `regular_size` does, and if reading fails."""
    regular_size(path, most)
    with _reasons(path), open(path, "rb") as stream:
        data = stream.read(most + 1)  # a file of /proc has no size until it is read
    if len(data) > most:
        raise InputError(f"{shown(path)}: {most / 1e6:,.0f} MB at most are read")
    return data


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """A text file: UTF-8, or UTF-16 or 32 with a byte-order mark, which is dropped. Raises InputError with its name."""
    data = read_file(path, most)
    coding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(coding)
    except UnicodeDecodeError:
        raise InputError(f"{shown(path)}: not UTF-8 text; save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{shown(path)}: not a text file (it holds zero bytes); save it as UTF-8 text")
    return text


@contextmanager
def _reasons(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{shown(path)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
