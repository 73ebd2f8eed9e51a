"""Where a model reference leads: shipped with the package, the registry, a local path, or an id on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from dmp_core.errors import InputError
from dmp_core.models import registry
from dmp_core.resources import manifest_root
from dmp_core.store import sha256_folder, sha256_stream

Kind = Literal["priors", "adapters"]


@dataclass(frozen=True)
class Located:
    """What a loader takes: a path here, or an id on the hub."""

    place: str
    revision: str | None = None
    """Of an id on the hub; None is its main branch."""
    local: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """For `from_pretrained`: nothing of a local model may come from the network."""
        return {"local_files_only": True} if self.local else {"revision": self.revision}


def resolve_model(reference: str, field: str, *, kind: Kind | None = None, revision: str | None = None) -> Located:
    """What a setting that names a model means; every stage asks here.

    reference: `shipped:NAME` (where `kind` says which are shipped), an id of the registry, a local file or folder, or
    an id on the hub. One that the registry knows is the pulled copy if there is one, else its pinned revision.
    field: the setting, for errors.
    Raises InputError when a shipped name or an explicit path does not exist, and when a model of the registry is
    missing, cut short or tampered with; its message names the file and the mend.
    """
    if kind is not None and reference.startswith("shipped:"):
        return Located(str(_shipped(reference, kind)))
    model = registered(reference, revision)
    if model is not None and (model.id == reference or registry.present(model)):
        return Located(str(registry.require(model, field)))
    path = Path(reference).expanduser()
    if path.exists():
        return Located(str(path.resolve()))
    if reference.startswith((".", "/", "~")):
        raise InputError(f"{field}: {reference}: no such folder or file; give one, a hub id, or shipped:NAME")
    return Located(reference, revision or (model.revision if model else None), local=False)


def registered(reference: str, revision: str | None = None) -> registry.Model | None:
    """The registry's model that is meant; a local folder by the name of a hub id is meant for itself."""
    model = registry.find(reference, revision)
    return None if model is not None and model.id != reference and Path(reference).exists() else model


def resolve_folder(reference: str, kind: Kind, revision: str | None = None, *, field: str | None = None) -> Path | None:
    """As `resolve_model`, for models that are folders: the folder, or None for an id on the hub."""
    located = resolve_model(reference, field or kind.removesuffix("s"), kind=kind, revision=revision)
    return Path(located.place) if located.local else None


def identity(reference: str, revision: str | None, kind: Kind, *, field: str | None = None) -> str:
    """What a fingerprint holds of a model: what the registry pins, the digest of its files, or hub id and revision.

    field: the setting that names it, for errors.
    Asks neither the network nor for files of a registered model, so that any machine can plan.
    """
    model = registered(reference, revision)
    if model is not None:
        return model.identity()
    located = resolve_model(reference, field or kind.removesuffix("s"), kind=kind, revision=revision)
    return local_digest(Path(located.place)) if located.local else f"{reference}@{revision or 'main'}"


def local_digest(path: Path) -> str:
    """Of a file or a folder's files; read again only when one of them has changed."""
    files = [path] if path.is_file() else path.rglob("*")
    newest = max((file.stat().st_mtime_ns for file in files), default=0)
    return _digest(path, newest)


def _shipped(reference: str, kind: Kind) -> Path:
    root = manifest_root() / kind
    folder = root / reference.removeprefix("shipped:")
    if not folder.is_dir():
        names = sorted(path.name for path in root.glob("*") if path.is_dir())
        raise InputError(f"{reference}: no such model ships with the package; there are: {', '.join(names) or 'none'}")
    return folder


@lru_cache(maxsize=32)
def _digest(path: Path, newest: int) -> str:
    del newest  # part of the cache key: what was edited is read again
    if path.is_dir():
        return sha256_folder(path)[:16]
    with path.open("rb") as stream:
        return sha256_stream(stream)[:16]
