"""Which weights there are (`data_manifests/models.yaml`), where they lie, and whether they are what they should be.

`DMP_MODELS_REGISTRY` names a registry of your own; its entries replace the package's of the same id or hub id.

Weights lie below `DMP_MODELS_DIR`. A file is held to the digest that the registry states, or, where its publisher
states none, to that of the first copy that was used; `models.lock.json` keeps these, and what was checked when, so
that a file is read again only when its size or time changed. What is no weights at all (`what_is_wrong`) never gets
there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from dmp_core.errors import InputError
from dmp_core.resources import manifest_path
from dmp_core.settings import Settings, raise_readable, read_yaml
from dmp_core.store import canonical_json, sha256_file

log = logging.getLogger(__name__)

LOCK = "models.lock.json"
OWN = "DMP_MODELS_REGISTRY"
"""Environment variable: the file of your own registry."""
Fault = Literal["missing", "truncated", "tampered", "unusable"]
_PAGES = (b"<!doctype", b"<!--", b"<html", b"<head", b"<body", b"<script", b"<?xml", b"<error")
_LFS = b"version https://git-lfs.github.com/spec"
_HEAD = 4096
"""Bytes of a file's start that tell what it is."""
_WEIGHTS = frozenset({".bin", ".ckpt", ".gguf", ".pt", ".pth", ".safetensors", ".t7"})


class ModelFile(Settings):
    """One file of a model."""

    path: str
    """Below the model's folder; for a model on the hub also below its repository."""
    url: str | None = None
    """Where it is fetched, unless from the hub or by hand."""
    mirrors: tuple[str, ...] = ()
    """Further URLs of the same bytes, tried in this order."""
    bytes: PositiveInt | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _stays_inside(self) -> ModelFile:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"path: {self.path!r} must lie below the model's folder")
        return self


class Model(Settings):
    """One entry of the registry."""

    id: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
    stages: Annotated[list[str], Field(min_length=1)]
    """That may use it."""
    hub: str | None = None
    """`owner/name` on the Hugging Face hub."""
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """Commit of the hub repository, which fixes every byte; None is its main branch."""
    manual: bool = False
    """No program may fetch it: a person does, from `page`."""
    page: str | None = None
    """Where a person finds it; of a model on the hub, its repository."""
    licence: str
    terms: str
    """The licence in a phrase."""
    gated: bool
    """Its publisher wants the terms accepted, and a token."""
    approximate_gb: PositiveFloat
    """Of all files, for those whose size is not stated."""
    vram_gb: PositiveFloat
    network: str | None = None
    """What its files are opened as, once they are here: a labeler's name, `diffusers`, `transformers`, or `decoder`
    for one of latents."""
    files: Annotated[list[ModelFile], Field(min_length=1)]
    registry: str | None = None
    """Name of your own registry that it is from, which fills this in; None is the package's."""

    @model_validator(mode="after")
    def _has_a_source(self) -> Model:
        if self.hub is None and self.page is None:
            raise ValueError(f"{self.id}: give hub, or page with a url for each file or manual: true")
        if self.hub is None and not self.manual and not all(file.url for file in self.files):
            raise ValueError(f"{self.id}: give each file its url, or set manual: true")
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError(f"{self.id}: a file is listed twice")
        return self

    @property
    def address(self) -> str:
        return self.page or f"https://huggingface.co/{self.hub}"

    @property
    def folder(self) -> str:
        """Its name below the models directory; another revision, or registry, is another folder."""
        name = f"{self.id}-{self.revision[:8]}" if self.revision else self.id
        return f"{self.registry}/{name}" if self.registry else name

    @property
    def size(self) -> int:
        """Bytes of all files, approximate unless each file's are stated."""
        sizes = [file.bytes for file in self.files]
        return sum(size for size in sizes if size) if all(sizes) else int(self.approximate_gb * 1e9)

    def place(self) -> Path:
        """What a loader is given: the folder, or the file where there is but one."""
        folder = models_dir() / self.folder
        return folder / self.files[0].path if len(self.files) == 1 else folder

    def identity(self) -> str:
        """What a fingerprint holds of it, the same whether it is here or not, where its bytes are known before.

        A commit fixes them; without one, and in your own registry, the digests do, stated or locked, and None
        represents a file that neither knows before its first use.
        """
        if self.hub and self.revision and not self.registry:
            return f"{self.hub}@{self.revision}"
        known = Lock(models_dir()).digests
        digests = {file.path: file.sha256 or known.get(f"{self.folder}/{file.path}") for file in self.files}
        return f"{self.id}@{hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:16]}"


class Registry(Settings):
    """The whole file."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")] | None = None
    """Of your own registry, whose weights lie in a folder of this name; None is the package's."""
    models: list[Model]
    moved: dict[str, str] = {}
    """Hub repository that was withdrawn → the copy that is kept."""

    @model_validator(mode="after")
    def _names_differ(self) -> Registry:
        for names in ([model.id for model in self.models], [model.hub for model in self.models if model.hub]):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"listed twice: {', '.join(sorted(twice))}")
        return self


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file of a model."""

    model: Model
    file: ModelFile
    path: Path
    fault: Fault
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


# ------------------------------------------------------------------------------------ finding
def models_dir() -> Path:
    """Where weights lie: `DMP_MODELS_DIR`, else `~/.cache/dmp/models`."""
    return Path(os.environ.get("DMP_MODELS_DIR") or "~/.cache/dmp/models").expanduser()


def own_registry() -> Path | None:
    """The file that `DMP_MODELS_REGISTRY` names; None if it is not set."""
    named = os.environ.get(OWN)
    return Path(named).expanduser().absolute() if named else None


def _registry() -> Registry:
    own = own_registry()
    return _shipped() if own is None else _with_own(own, _time_of(own))


@lru_cache(maxsize=1)
def _shipped() -> Registry:
    return _validated(manifest_path("models.yaml"), "models.yaml")


@lru_cache(maxsize=8)
def _with_own(path: Path, time: int) -> Registry:
    """Your own entries, then the package's that they do not replace; with a notice, once."""
    del time  # part of the cache key: what was edited is read again
    own, shipped = _validated(path, f"{OWN}: {path}"), _shipped()
    if own.name is None:
        raise InputError(f"{OWN}: {path}: name: missing; give the registry a name, e.g. name: our-lab")
    unstated = [f"{model.id}: {file.path}" for model in own.models for file in model.files if file.sha256 is None]
    if unstated:
        raise InputError(f"{OWN}: {path}: {unstated[0]}: sha256: missing; state it for every file")
    models = [model.model_copy(update={"registry": own.name}) for model in own.models]
    names = {name for model in models for name in (model.id, model.hub) if name}
    kept = [model for model in shipped.models if names.isdisjoint({model.id, model.hub})]
    log.warning("models: registry %r (%s) states %s", own.name, path, ", ".join(model.id for model in models))
    return Registry(name=own.name, models=[*models, *kept], moved=shipped.moved | own.moved)


def _validated(path: Path, source: str) -> Registry:
    try:
        return Registry.model_validate(read_yaml(path))
    except ValidationError as error:
        raise_readable(error, source)


def _time_of(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{OWN}: {path}: {error.strerror}; name a registry's file, or unset it") from None


def registry() -> list[Model]:
    """All models, in the file's order. Raises InputError that names the field when the file is broken."""
    return _registry().models


def present_name(reference: str, revision: str | None = None) -> str:
    """The hub id under which a withdrawn repository is kept; any other reference as it is.

    A revision is a commit of the repository that is gone, so that it means no other one, unless it is the kept copy's,
    or the main branch.
    """
    kept = kept_copy(reference)
    if kept is None:
        return reference
    known = {None, "main", *(model.revision for model in registry() if model.hub == kept)}
    return kept if revision in known else reference


def kept_copy(reference: str) -> str | None:
    """The hub id under which a withdrawn repository is kept; None for others."""
    return _registry().moved.get(reference)


def find(reference: str, revision: str | None = None) -> Model | None:
    """The model of this id, or of this hub id unless another revision is asked for; None if there is none.

    A withdrawn repository is the copy that is kept.
    """
    name = present_name(reference, revision)
    for model in registry():
        if name == model.id or (name == model.hub and revision in (None, model.revision)):
            return model
    return None


def get(name: str) -> Model:
    """As `find`, but an unknown name is an InputError that lists the known ones."""
    model = find(name)
    if model is None:
        raise InputError(f"model {name!r} is not in the registry; there are: {', '.join(m.id for m in registry())}")
    return model


# ----------------------------------------------------------------------------------- checking
def check(model: Model, *, full: bool = False, read: bool = True, trust: bool = True) -> list[Problem]:
    """What is wrong with a model's files, in their order; nothing if it can be used.

    A file is read when it is new or its size or time changed since it was last found right, with `full` always,
    and never without `read`, which then holds sizes, and what the first bytes tell, only. With `trust`, the first copy
    of a file without a stated digest is written into the lock.
    """
    root = models_dir()
    lock = Lock(root)
    problems = [_fault(model, file, root / model.folder / file.path, lock, full, read, trust) for file in model.files]
    lock.save()
    return [problem for problem in problems if problem]


def proven(model: Model) -> bool:
    """Whether every file is in the lock as it lies there."""
    root = models_dir()
    lock = Lock(root)
    paths = {f"{model.folder}/{file.path}": file.sha256 for file in model.files}
    return all(
        (root / key).is_file() and lock.is_fresh(key, root / key, stated or lock.digests.get(key))
        for key, stated in paths.items()
    )


def what_is_wrong(path: Path) -> str | None:
    """Why a file can be no weights and nothing beside them, by its first bytes: empty, a web page, or a pointer to the
    file; None if nothing shows."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty"
    if text.startswith(_PAGES) and _suffix(path) not in (".html", ".xml"):
        return "is a web page"
    if text.startswith(_LFS):
        return "is a pointer of Git LFS, not the file; run `git lfs pull` where it was copied from"
    if text.startswith(b"{") and len(head) < _HEAD and _suffix(path) in _WEIGHTS:
        return f"is a message: {head[:200].decode(errors='replace')}"
    return None


def present(model: Model) -> bool:
    """Whether any of its files is here, right or wrong."""
    folder = models_dir() / model.folder
    return any((folder / file.path).is_file() for file in model.files)


def require(model: Model, field: str) -> Path:
    """The folder of a complete model; else an InputError naming the first bad file, `field` and the fix."""
    problems = check(model)
    if problems:
        more = f" (and {len(problems) - 1} files more)" if len(problems) > 1 else ""
        raise InputError(f"{field}: {problems[0]}{more}; run: dmp models pull {model.id}")
    return model.place()


def _suffix(path: Path) -> str:
    """The file's own, also of one that is still being fetched."""
    return Path(path.name.removesuffix(".part")).suffix


def _fault(
    model: Model, file: ModelFile, path: Path, lock: Lock, full: bool, read: bool, trust: bool
) -> Problem | None:
    if not path.is_file():
        return Problem(model, file, path, "missing", "missing")
    found, key = path.stat().st_size, f"{model.folder}/{file.path}"
    if wrong := what_is_wrong(path):
        lock.forget(key, path)
        return Problem(model, file, path, "unusable" if found else "truncated", wrong)
    expected = file.sha256 or lock.digests.get(key)
    size = file.bytes or (None if read else lock.size(key, expected))  # what is read is held to its digest
    if size and found != size:
        return Problem(model, file, path, "truncated", f"has {found} of {size} bytes")
    if not read or (not full and lock.is_fresh(key, path, expected)):
        return None
    digest = sha256_file(path)
    if expected and digest != expected:
        whose = "published" if file.sha256 else f"first used (see {LOCK})"
        detail = f"not the file that was {whose}: its SHA-256 is {digest[:12]}…, not {expected[:12]}…"
        return Problem(model, file, path, "tampered", detail)
    if trust or file.sha256:
        lock.note(key, path, digest)
    return None


class Lock:
    """`models.lock.json`: of every file that was found right its digest, size and time."""

    def __init__(self, root: Path) -> None:
        self.path = root / LOCK
        self.changes: dict[str, dict[str, Any]] = {}
        self.forgotten: set[str] = set()
        self.entries = self._read()

    @property
    def digests(self) -> dict[str, str]:
        return {key: entry["sha256"] for key, entry in self.entries.items() if entry["bytes"]}

    def size(self, key: str, digest: str | None) -> int | None:
        """Bytes of the file that has this digest, if one was ever found right."""
        entry = self.entries.get(key)
        return entry["bytes"] if entry and entry["sha256"] == digest else None

    def is_fresh(self, key: str, path: Path, expected: str | None) -> bool:
        entry = self.entries.get(key)
        return entry is not None and entry == _stamp(path, expected or "")

    def note(self, key: str, path: Path, digest: str) -> None:
        self.changes[key] = self.entries[key] = _stamp(path, digest)

    def forget(self, key: str, path: Path) -> None:
        """Drop an entry that is of this very file."""
        entry = self.entries.get(key)
        if entry is not None and entry == _stamp(path, entry["sha256"]):
            self.forgotten.add(key)
            del self.entries[key]

    def save(self) -> None:
        """Add what was noted to what others noted meanwhile."""
        if not self.changes and not self.forgotten:
            return
        try:
            with _alone(self.path.parent):
                kept = {key: entry for key, entry in self._read().items() if key not in self.forgotten}
                merged = kept | self.changes
                temporary = self.path.with_suffix(".tmp")
                temporary.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
                temporary.replace(self.path)
        except OSError as error:  # weights that others keep for us
            log.warning("%s: cannot be written (%s); its files are read again each time", self.path, error.strerror)
        self.changes, self.forgotten = {}, set()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            entries: dict[str, dict[str, Any]] = json.loads(self.path.read_text())
            if all(entry.keys() == {"sha256", "bytes", "mtime_ns"} for entry in entries.values()):
                return entries
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError):
            pass
        raise InputError(f"{self.path}: not a valid lock file; restore it, or delete it to trust the files as they are")


def _stamp(path: Path, digest: str) -> dict[str, Any]:
    status = path.stat()
    return {"sha256": digest, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time changes the lock file."""
    with (folder / f".{LOCK}.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
