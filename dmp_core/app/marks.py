"""Samples marked as bad: the keys in `rejects.txt`, which is written at each mark."""

from __future__ import annotations

import os
from collections.abc import Iterable
from threading import Lock

from dmp_core.errors import InputError
from dmp_core.quality.rejects import REJECTS_FILE, listed, marked
from dmp_core.store import Workspace


class Marks:
    """The file is the truth: it is read before each change, so that several windows, and an editor, may write it."""

    def __init__(self, place: Workspace, folder: str, keys: Iterable[str]) -> None:
        """keys: those that can be marked; other lines of the file stay as they are."""
        self.place, self.folder, self.known = place, folder, frozenset(keys)
        self._writing = Lock()

    @property
    def address(self) -> str:
        """As a command takes it; below the present folder without that."""
        address = f"{self.place.address(self.folder)}/{REJECTS_FILE}"
        return address.removeprefix(f"{os.getcwd()}/") if self.place.is_local else address

    def keys(self) -> frozenset[str]:
        """The marked ones."""
        return self.known & {key for _, key in listed(self._text(), self.known.__contains__)}

    def toggle(self, key: str) -> bool:
        """Mark a sample, or take its mark back; returns whether it is marked now, and that is on the disk."""
        with self._writing:
            reject = key not in self.keys()
            text = marked(self._text(), key, reject, self.known.__contains__)
            self.place.write_bytes(self.folder, REJECTS_FILE, text.encode())
        return reject

    def _text(self) -> str:
        path = f"{self.folder}/{REJECTS_FILE}"
        data: bytes = self.place.fs.cat_file(path) if self.place.fs.exists(path) else b""
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise InputError(f"{self.address}: not UTF-8 text; save it as UTF-8") from None
