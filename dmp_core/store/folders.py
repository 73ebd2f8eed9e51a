"""List, remove, copy and exchange folders by name; names are never read as patterns.

fsspec reads `[`, `*` and `?` in a path as a pattern: always in `glob`; in `rm`, `copy`, `get` and `put` wherever it
expands the path itself (not in local `rm`, and not where both sides are lists of names).
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, TypeAlias

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dmp_core.store.files import at, sync_folder

FileSystem: TypeAlias = Any
"""An fsspec file system; fsspec has no type annotations."""
_URL = re.compile(r"[a-z][a-z0-9+.:-]*://", re.IGNORECASE)


def open_place(url: str | Path) -> tuple[FileSystem, str]:
    """(file system, path in it) of a local folder, whatever its name, or of an fsspec URL."""
    text = str(url)
    if isinstance(url, Path) or not _URL.match(text) or text.startswith(("file://", "local://")):
        # Not with fsspec, which would read a folder called `a::b` as a chain of URLs.
        path = text if isinstance(url, Path) else text.removeprefix("file://").removeprefix("local://")
        return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(path))
    # Other machines write here too, so cached listings would be out of date.
    fs, root = fsspec.core.url_to_fs(text, use_listings_cache=False)
    return fs, str(root)


def names_in(fs: FileSystem, folder: str) -> list[str]:
    """Sorted names of a folder's entries, except hidden ones; empty if there is no such folder."""
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
    """Sorted paths, relative to the folder, of all files below it that are neither hidden nor in a hidden folder."""
    found = (path.removeprefix(folder).lstrip("/") for path in fs.find(folder))
    return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def age_of(info: dict[str, Any]) -> float:
    """Seconds since a file was written, by its entry in a listing."""
    changed = next((info[name] for name in ("mtime", "LastModified") if name in info), time.time())
    return time.time() - (changed.timestamp() if hasattr(changed, "timestamp") else float(changed))


def remove(fs: FileSystem, path: str) -> None:
    """Remove a file, or a folder with its content; does nothing if the path does not exist."""
    if isinstance(fs, LocalFileSystem):
        if os.path.lexists(path):
            fs.rm(path, recursive=True)
        return
    found: dict[str, Any] = fs.find(path, withdirs=True, detail=True)
    for name, info in sorted(found.items(), reverse=True):  # a folder's content before the folder
        if info.get("type") != "directory":
            fs.rm_file(name)
        elif fs.exists(name):  # in an object store a folder disappears with its last file
            fs.rmdir(name)


def exchange(fs: FileSystem, new: str, path: str) -> None:
    """Replace the folder `path` with the folder `new`; the old content is removed last.

    A process that is killed meanwhile leaves `new` complete, and either all or nothing of the old folder at `path`.
    """
    if not isinstance(fs, LocalFileSystem):
        mirror(fs, new, path)
        remove(fs, new)
        return
    old = _hidden_sibling(path, "old")
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
    """Make the folder `path` a copy of `source`; the manifest, if there is one, is copied last.

    An object store cannot rename. There the old manifest is removed first, so that a mixture never looks complete.
    """
    names = sorted(files_below(fs, source), key=lambda name: name == "manifest.json")
    if isinstance(fs, LocalFileSystem):
        new = _hidden_sibling(path, "new")
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


def _hidden_sibling(path: str, word: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{word}"
