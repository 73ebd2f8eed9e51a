"""Where a model reference leads: shipped with the package, the registry, a local path, or an id on the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from dmp_core.diffusion.shipped import Kind, shipped_folder
from dmp_core.errors import InputError
from dmp_core.store import sha256_file, sha256_files, sha256_folder
from dmp_core.weights import registry

log = logging.getLogger(__name__)

UNREADABLE = (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError, UnpicklingError, SafetensorError)
"""What the libraries raise on a model that is incomplete, damaged, or holds code instead of weights."""


def why_unreadable(error: Exception) -> str:
    """One line of what a library says."""
    if isinstance(error, UnpicklingError):  # the libraries propose to run what is in it
        return "its weights are a pickle that holds more than tensors; give them as .safetensors"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
    an id on the hub. One that the registry knows is the pulled copy if there is one, else its pinned revision; one that
    its publisher withdrew is the copy that is kept, with a notice.
    field: the setting, for errors.
    Raises InputError when a shipped name or an explicit path does not exist, and when a model of the registry is
    missing, cut short or tampered with; its message names the file and the fix.
    """
    if kind is not None and (folder := shipped_folder(reference, kind, field)) is not None:
        return Located(str(folder))
    model = registered(reference, revision)
    notice_moved(reference, revision, field)
    if model is not None and (model.id == reference or registry.present(model)):
        return Located(str(registry.require(model, field)))
    path = Path(reference).expanduser()
    if kind == "adapters":
        path = _named_adapter(path) or path
    if path.exists():
        return Located(str(path.absolute() if kind == "adapters" else path.resolve()))
    if reference.startswith((".", "/", "~")):
        raise InputError(f"{field}: {reference}: no such folder or file; give one, a hub id, or shipped:NAME")
    name = registry.present_name(reference, revision)
    return Located(name, revision or (model.revision if model else None), local=False)


@lru_cache(maxsize=64)
def notice_moved(reference: str, revision: str | None, field: str) -> None:
    """Log, once per setting, that a repository is not the one that was named, or is gone with its revision."""
    kept = registry.kept_copy(reference)
    if kept is None or Path(reference).exists():
        return
    if registry.present_name(reference, revision) == kept:
        log.warning("%s: %s was withdrawn by its publisher; %s, the copy that is kept, is used", field, reference, kept)
        return
    log.warning(
        "%s: %s was withdrawn by its publisher, so that its revision %s is found in the hub's cache of this machine at "
        "most; leave the revision out to use %s, the copy that is kept", field, reference, revision, kept,
    )  # fmt: skip


def _named_adapter(path: Path) -> Path | None:
    """The folder of a published adapter by its name: in `ckpt`, where the authors have theirs, or in `DMP_MODELS_DIR`.

    Names in neither, and whatever exists by itself, are none.
    """
    if path.exists() or path.is_absolute() or ".." in path.parts:
        return None
    roots = (Path("ckpt"), registry.models_dir(), registry.models_dir() / "ckpt")
    return next((root / path for root in roots if (root / path).is_dir()), None)


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
    if not located.local:
        return f"{located.place}@{revision or 'main'}"
    place = Path(located.place)
    return _digest(place, _state(place), sha256_folder if place.is_dir() else _sha256_all)


def same_model(one: str, other: str) -> bool:
    """Whether two references mean one model, whatever they call it: an id of the registry or on the hub, in any
    revision, a withdrawn repository, or a folder that holds the same weights. For settings that depend on the network.
    """
    return one == other or _known_as(one) == _known_as(other)


def _known_as(reference: str) -> str:
    """The registry's id of a model, or what else identifies it; the reference itself where nothing lies yet."""
    model = registered(reference)
    path = Path(reference).expanduser()
    if model is None and path.is_dir():
        model = _recognised(path)
    try:
        return model.id if model is not None else identity(reference, None, "priors")
    except InputError:  # a folder that does not exist; the plan says so
        return reference


def _recognised(folder: Path) -> registry.Model | None:
    """The registry's model that lies in a folder: every file whose digest is published is there and the same."""
    for model in registry.registry():
        stated = {folder / file.path: file for file in model.files if file.sha256}
        sizes = [path.is_file() and file.bytes in (None, path.stat().st_size) for path, file in stated.items()]
        if stated and all(sizes) and all(_sha256(path, _state(path)) == file.sha256 for path, file in stated.items()):
            return model
    return None


@lru_cache(maxsize=32)
def _sha256(path: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    del state  # part of the cache key
    return sha256_file(path)


def local_digest(path: Path) -> str:
    """Of a file, or of all files in a folder, whatever their format; read again only when one of them has changed."""
    return _digest(path, _state(path), _sha256_all)


def model_hash(reference: str, revision: str | None = None, file: str = "") -> str | None:
    """What fixes a model that makes prompts or labels, by the registry or by its files here; None if neither has it.

    file: the only one that is read of a folder. The same whether this machine loads the model or a server does.
    """
    if model := registered(reference, revision):
        return model.identity()
    path = Path(reference).expanduser() / file
    return local_digest(path) if path.exists() else None


def _files(path: Path) -> list[Path]:
    """A file itself, or those in a folder but hidden ones, such as what a download notes for itself."""
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    names = {file: file.relative_to(path).parts for file in found if file.is_file()}
    return [file for file, parts in names.items() if not any(part.startswith(".") for part in parts)]


def _state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of each file: they change when a file does."""
    status = {file: file.stat() for file in _files(path)}
    return tuple((str(file), found.st_size, found.st_mtime_ns) for file, found in status.items())


@lru_cache(maxsize=32)
def _digest(path: Path, state: tuple[tuple[str, int, int], ...], read: Callable[[Path], str]) -> str:
    del state  # part of the cache key: what was edited is read again
    return read(path)[:16]


def _sha256_all(path: Path) -> str:
    return sha256_files(_files(path), path)
