"""What folders hold, and how they are removed, copied and exchanged: by names, which are never patterns.

fsspec takes `[`, `*` and `?` in a path for a pattern: in `glob` always; in `rm`, `copy`, `get` and `put` wherever it
expands the path itself, which local `rm` does not, and lists of names on both sides are spared.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeAlias

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dmp_core.store.files import at, sync_folder

FileSystem: TypeAlias = Any
"""One of fsspec's, which has no types."""
_URL = re.compile(r"[a-z][a-z0-9+.:-]*://", re.IGNORECASE)


def open_place(url: str | Path) -> tuple[FileSystem, str]:
    """(file system, path in it) of a local folder, whatever its name, or of an fsspec URL."""
    text = str(url)
    if isinstance(url, Path) or not _URL.match(text) or text.startswith(("file://", "local://")):
        # Not by fsspec, which takes a folder called `a::b` for a chain of URLs.
        path = text if isinstance(url, Path) else text.removeprefix("file://").removeprefix("local://")
        return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(path))
    # Other machines write here too, so what a folder held a moment ago is no answer.
    fs, root = fsspec.core.url_to_fs(text, use_listings_cache=False)
    return fs, str(root)


def names_in(fs: FileSystem, folder: str) -> list[str]:
    """Sorted names of what lies in a folder, hidden ones apart; none if there is no such folder."""
    return [name for name in _names(fs, folder) if not name.startswith(".")]


def hidden_in(fs: FileSystem, folder: str) -> list[str]:
    return [name for name in _names(fs, folder) if name.startswith(".")]


def _names(fs: FileSystem, folder: str) -> list[str]:
    try:
        found = fs.ls(folder, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = {path.removeprefix(f"{folder}/").rstrip("/") for path in found if path.rstrip("/") != folder}
    return sorted(names - {""})


def files_below(fs: FileSystem, folder: str) -> list[str]:
    """Paths relative to the folder, sorted, of all files below it that are not hidden, nor in a hidden folder."""
    found = (path.removeprefix(folder).lstrip("/") for path in fs.find(folder))
    return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def remove(fs: FileSystem, path: str) -> None:
    """A file, or a folder with all that is in it; nothing if it is not there."""
    if isinstance(fs, LocalFileSystem):
        if os.path.lexists(path):
            fs.rm(path, recursive=True)
        return
    found: dict[str, Any] = fs.find(path, withdirs=True, detail=True)
    for name, info in sorted(found.items(), reverse=True):  # what is in a folder before the folder
        if info.get("type") != "directory":
            fs.rm_file(name)
        elif fs.exists(name):  # in an object store it is gone with its last file
            fs.rmdir(name)


def exchange(fs: FileSystem, new: str, path: str) -> None:
    """Put the folder `new` in the place of `path`; what is there goes last.

    A process that is killed on the way leaves `new` whole, and all or nothing of the old folder in its place.
    """
    if not isinstance(fs, LocalFileSystem):
        mirror(fs, new, path)
        remove(fs, new)
        return
    old = _hidden_beside(path, "old")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    remove(fs, old)
    if os.path.lexists(path):
        os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise
    try:
        sync_folder(Path(path).parent)
    finally:
        remove(fs, old)


def mirror(fs: FileSystem, source: str, path: str) -> None:
    """Make the folder `path` a copy of `source`, whose manifest, if it has one, is there last.

    An object store cannot rename. There the old manifest goes first, so that nobody takes a mixture for complete.
    """
    names = sorted(files_below(fs, source), key=lambda name: name == "manifest.json")
    if isinstance(fs, LocalFileSystem):
        new = _hidden_beside(path, "new")
        remove(fs, new)
        try:
            _copy(fs, source, new, names)
            exchange(fs, new, path)
        except OSError as error:
            remove(fs, new)
            raise at(error.filename2 or error.filename or new, error) from error
        return
    before = files_below(fs, path)
    for name in before:
        if name == "manifest.json" or name not in names:
            fs.rm_file(f"{path}/{name}")
    _copy(fs, source, path, names)


def _copy(fs: FileSystem, source: str, target: str, names: list[str]) -> None:
    for name in names:
        path = f"{target}/{name}"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.cp_file(f"{source}/{name}", path)


def _hidden_beside(path: str, word: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{word}"
