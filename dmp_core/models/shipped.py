"""Where a model reference leads: shipped with the package, a local folder, or an id on the hub."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from dmp_core.errors import InputError
from dmp_core.resources import manifest_root
from dmp_core.store import sha256_folder

Kind = Literal["priors", "adapters"]


def resolve_folder(reference: str, kind: Kind) -> Path | None:
    """`shipped:NAME` or a local folder as a path; None for an id on the hub.

    Raises InputError when a shipped name or an explicit path does not exist.
    """
    if reference.startswith("shipped:"):
        root = manifest_root() / kind
        folder = root / reference.removeprefix("shipped:")
        if not folder.is_dir():
            names = sorted(path.name for path in root.glob("*") if path.is_dir())
            raise InputError(
                f"{reference}: no such model ships with the package; there are: {', '.join(names) or 'none'}"
            )
        return folder
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if reference.startswith((".", "/", "~")):
        raise InputError(f"{reference}: no such folder; give a model folder, a hub id, or shipped:NAME")
    return None


def identity(reference: str, revision: str | None, kind: Kind) -> str:
    """What a fingerprint holds of a model: the digest of its files, or its hub id and revision."""
    folder = resolve_folder(reference, kind)
    if folder is None:
        return f"{reference}@{revision or 'main'}"
    newest = max((path.stat().st_mtime_ns for path in folder.rglob("*")), default=0)
    return _folder_digest(folder, newest)


@lru_cache(maxsize=32)
def _folder_digest(folder: Path, newest: int) -> str:
    del newest  # part of the cache key: an edited folder is read again
    return sha256_folder(folder)[:16]
