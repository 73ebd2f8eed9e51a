"""A workspace (local folder or fsspec URL) and the artefacts in it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dmp_core.errors import InputError, MissingExtra
from dmp_core.passwords import refuse_password
from dmp_core.store.files import at, disk_error, make_folder, sync_tree, write_file
from dmp_core.store.fingerprint import canonical_json, sha256_file, sha256_stream
from dmp_core.store.folders import exchange, files_below, hidden_in, names_in, open_place, remove

Status = Literal["complete", "partial", "stale", "missing"]


README = "README.md"
"""For readers, made from the other files of an artefact: manifests do not list it, and it may be missing or edited."""
LOG_FILES, LOG_FOLDERS = frozenset({"loss.csv"}), frozenset({"tensorboard"})
"""Names of training's logs: recorded in manifests, but nothing becomes stale when they differ."""

_log = logging.getLogger(__name__)


class FileRecord(BaseModel):
    """Name, size and digest of a published file."""

    model_config = ConfigDict(extra="forbid")

    name: str
    bytes: int
    sha256: str
    samples: int = 0
    """Samples in it, for shards."""
    first_key: str | None = None
    last_key: str | None = None
    fingerprint: str | None = None
    """Of the artefact that the shard was made for; shards of an older configuration are not reused."""
    threads: int | None = Field(default=None, exclude_if=lambda threads: threads is None)
    """Of torch, if the last digits of the content depend on them."""
    batch: int | None = Field(default=None, exclude_if=lambda batch: batch is None)
    """Samples per batch, likewise: all of the shard were made with it."""
    skipped: dict[str, str] = Field(default={}, exclude_if=lambda skipped: not skipped)
    """Key → reason of every sample that belongs in this shard and failed, here or in an input."""

    @property
    def ends(self) -> tuple[str, str]:
        """First and last key of the samples that belong in this shard, skipped ones included; empty if none do."""
        keys = sorted({*filter(None, (self.first_key, self.last_key)), *self.skipped})
        return (keys[0], keys[-1]) if keys else ("", "")

    @property
    def planned(self) -> int:
        """How many samples belong in this shard, skipped ones included."""
        return self.samples + len(self.skipped)

    @property
    def is_log(self) -> bool:
        """Whether it is a run's log, with its times: no other artefact is made from it."""
        *folders, file = self.name.split("/")
        return file in LOG_FILES or not LOG_FOLDERS.isdisjoint(folders)


class Manifest(BaseModel):
    """Published last: it marks the artefact as complete. Stored as `manifest.json`."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    stage_version: int
    name: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    contents: dict[str, str] = {}
    """Digest of each input's files when this was made; shows when an input was made again with another result."""
    files: list[FileRecord]
    samples: int
    seconds: float
    created: str
    packages: dict[str, str] = {}
    details: dict[str, Any] = {}
    """The stage's own details: models with revision and licence, failures, statistics."""

    @property
    def skipped(self) -> dict[str, str]:
        """Key → reason of every sample that is missing since it failed, here or in an input."""
        skipped: dict[str, str] = dict(self.details.get("skipped", {}))
        for record in self.files:
            skipped |= record.skipped
        return skipped

    def content(self, *, logs: bool = False) -> str:
        """First 12 hex digits of a SHA-256 over the names and digests of the files, by default without logs."""
        files = sorted((record.name, record.sha256) for record in self.files if logs or not record.is_log)
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]

    def is_content(self, noted: str) -> bool:
        """Whether this is the digest that another manifest recorded of these files; older ones included the logs."""
        return noted in (self.content(), self.content(logs=True))


Record = TypeVar("Record", bound=BaseModel)


class DamagedManifest(InputError):
    """Empty, truncated or overwritten, for example by a power cut or a bad disk."""


class Workspace:
    """The root of all artefacts."""

    def __init__(self, url: str | Path, *, verify_inputs: bool = True) -> None:
        """verify_inputs: compare every input that is read with its recorded digest."""
        self.verify_inputs = verify_inputs
        if not str(url).strip():  # as of a variable that is not set; it would be the current folder
            raise InputError("workspace: its name is empty; give a folder, or a URL such as s3://BUCKET/FOLDER")
        self.url = refuse_password(str(url), "give it in the variables or files of the storage's client")
        try:
            self.fs, self.root = open_place(self.url)
        except ValueError as error:
            raise InputError(f"{self.url}: {error}; give a folder, or a URL such as s3://BUCKET/FOLDER") from None
        except ImportError as error:
            raise MissingExtra.of(error) or InputError(f"{self.url}: {error}") from None

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def address(self, path: str) -> str:
        """A path in this workspace as other processes can open it: with its protocol, unless it is local."""
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    def write_bytes(self, folder: str, name: str, data: bytes) -> None:
        """Write atomically: on a disk via a temporary name; object stores accept complete files only."""
        if not self.is_local:
            self.fs.pipe_file(f"{folder}/{name}", data)
        else:
            write_file(Path(folder, name), data)

    def scratch(self, artefact: Artefact) -> Path:
        """A local folder that survives a killed process, so that work in it can be resumed."""
        return (Path(self.root) if self.is_local else _cache() / "scratch") / _scratch(artefact)

    def shared_scratch(self, artefact: Artefact) -> str:
        """A folder in the workspace for what another machine needs to resume that work."""
        return f"{self.root}/{_scratch(artefact)}"


def _scratch(artefact: Artefact) -> str:
    return f".scratch/{artefact.stage}/{artefact.name.replace('/', '-')}-{artefact.fingerprint}"


def _cache() -> Path:
    return Path.home() / ".cache" / "dmp"


@dataclass(frozen=True)
class Artefact:
    """One stage's output in a workspace: files, and a manifest once it is complete."""

    workspace: Workspace
    stage: str
    name: str
    fingerprint: str
    path: str

    @property
    def address(self) -> str:
        """Its path or URL."""
        return self.workspace.address(self.path)

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        return bool(self.workspace.fs.exists(self.file(name)))

    def read_bytes(self, name: str) -> bytes:
        try:
            return bytes(self.workspace.fs.cat_file(self.file(name)))
        except FileNotFoundError:
            raise InputError(f"{self.file(name)}: file is missing; rerun the stage `{self.stage}` to make it") from None

    def read_input(self, name: str) -> bytes:
        """A file of a finished artefact; raises InputError if it differs from the manifest's digest."""
        data = self.read_bytes(name)
        if self.workspace.verify_inputs:
            stated = {record.name: record.sha256 for record in self.published().files}
            if stated.get(name) != hashlib.sha256(data).hexdigest():
                raise InputError(self.changed(name))
        return data

    def changed(self, name: str) -> str:
        """The message for a file whose bytes differ from the recorded digest, with the fix."""
        place = self.workspace.address(self.workspace.root)
        return (
            f"{self.file(name)}: its bytes have changed since it was made; `dmp verify {place} --repair` removes it, "
            "then the command that made it makes it again"
        )

    def write_bytes(self, name: str, data: bytes) -> None:
        self.workspace.write_bytes(self.path, name, data)

    def manifest(self) -> Manifest | None:
        """The manifest if one is published for this fingerprint, else None; a damaged one counts as missing.

        Raises InputError if the file is another program's.
        """
        try:
            manifest = read_manifest(self.workspace, self.file("manifest.json"))
        except FileNotFoundError:
            return None
        except DamagedManifest as damage:
            notice(str(damage))
            return None
        return manifest if manifest.fingerprint == self.fingerprint else None

    def drop_damaged_manifest(self) -> None:
        """Remove a damaged manifest; raises InputError if it may have been another configuration's."""
        try:
            read_manifest(self.workspace, self.file("manifest.json"))
        except FileNotFoundError:
            return
        except DamagedManifest:
            others = {record.fingerprint for record in sidecars(self)} - {self.fingerprint}
            if others:
                raise InputError(
                    f"{self.file('manifest.json')}: damaged manifest next to shards of another configuration, which "
                    f"this one would overwrite; move {self.path} away, or make this dataset under another name"
                ) from None
            self.workspace.fs.rm_file(self.file("manifest.json"))

    def published(self) -> Manifest:
        """The manifest of a finished artefact; raises InputError if there is none."""
        manifest = self.manifest()
        if manifest is None:
            raise InputError(f"{self.path}: not complete; run the stage `{self.stage}` first")
        return manifest

    def missing_files(self, manifest: Manifest) -> list[FileRecord]:
        """Files of the manifest that are missing or have the wrong size."""
        try:
            listed = self.workspace.fs.find(self.path, detail=True)
        except FileNotFoundError:
            return list(manifest.files)
        sizes = {name.removeprefix(self.path).lstrip("/"): info["size"] for name, info in listed.items()}
        return [record for record in manifest.files if sizes.get(record.name) != record.bytes]

    def status(self) -> Status:
        """complete: manifest and all files; partial: some of them; missing: none."""
        manifest = self.manifest()
        if manifest is not None and not self.missing_files(manifest):
            return "complete"
        started = self.workspace.fs.exists(self.path) and any(
            record.fingerprint == self.fingerprint for record in sidecars(self)
        )
        return "partial" if manifest is not None or started else "missing"

    def has_older(self) -> bool:
        """Whether the workspace contains this artefact made with other settings or inputs."""
        fs = self.workspace.fs
        if not self.path.endswith(self.fingerprint):  # one path for all settings
            return bool(fs.exists(self.file("manifest.json")))
        folder, prefix = self.path.rpartition("/")[0], f"{self.name}-"
        others = (name for name in names_in(fs, folder) if name.startswith(prefix))
        siblings = (name for name in others if re.fullmatch("[0-9a-f]{12}", name.removeprefix(prefix)))
        return any(fs.exists(f"{folder}/{name}/manifest.json") for name in siblings)

    def again(self, contents: Mapping[str, str]) -> Artefact:
        """The same artefact in a folder next to it, to be made there from inputs with these digests, by role.

        The old one stays as it is until `take_place` replaces it. A remake that was killed is resumed, but never with
        shards that were made from other inputs.
        """
        folder, _, name = self.path.rpartition("/")
        known = hashlib.sha256(canonical_json([self.fingerprint, dict(contents)]).encode()).hexdigest()[:12]
        return replace(self, path=f"{folder}/.{name}.{known}")

    def take_place(self, made: Artefact) -> None:
        """Replace this artefact with `made`, the complete one from `again`; removes older attempts."""
        exchange(self.workspace.fs, made.path, self.path)
        folder, _, name = self.path.rpartition("/")
        for left in hidden_in(self.workspace.fs, folder):
            if left.startswith(f".{name}."):
                remove(self.workspace.fs, f"{folder}/{left}")

    def verify(self) -> list[str]:
        """Names of files whose bytes differ from the manifest's digests."""
        manifest = self.manifest()
        if manifest is None:
            return ["manifest.json"]
        broken = {record.name for record in self.missing_files(manifest)}
        for record in manifest.files:
            if record.name not in broken and self.digest(record.name) != record.sha256:
                broken.add(record.name)
        return sorted(broken)

    def digest(self, name: str) -> str:
        """SHA-256 of a file's current bytes."""
        with self.workspace.fs.open(self.file(name), "rb") as stream:
            return sha256_stream(stream)

    def local_path(self) -> Path:
        """The artefact as a local folder; a remote one is fetched, once per address and content.

        Raises InputError when a file differs from the manifest's digest, OSError when a fetched file does, for example
        because another run is making it again.
        """
        if self.workspace.is_local:
            for record in self.published().files if self.workspace.verify_inputs else ():
                if not record.is_log and self.digest(record.name) != record.sha256:
                    raise InputError(self.changed(record.name))
            return Path(self.path)
        place = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        manifest = self.published()
        target = _cache() / "fetched" / f"{place}-{manifest.content(logs=True)}"
        if not target.exists():
            part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
            part.mkdir(parents=True)
            try:
                self._fetch(manifest, part)
                part.rename(target)
            except OSError:
                if not target.exists():  # else another process was faster
                    raise
            finally:
                if part.exists():
                    shutil.rmtree(part)
        return target

    def _fetch(self, manifest: Manifest, folder: Path) -> None:
        names = files_below(self.workspace.fs, self.path)
        self.workspace.fs.get([self.file(name) for name in names], [str(folder / name) for name in names])
        for record in manifest.files:
            path = folder / record.name
            if not path.is_file() or sha256_file(path) != record.sha256:
                raise OSError(
                    f"{self.address}: {record.name} differs from the manifest; rerun if another run was just making "
                    "it again, else make it again with `--force`"
                )


def read_manifest(workspace: Workspace, path: str) -> Manifest:
    """Raises DamagedManifest, and InputError for an intact file that is no manifest; both state the fix."""
    data = workspace.fs.cat_file(path)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
    if not _is_json(data):
        raise DamagedManifest(f"{path}: damaged manifest{_emptiness(data)}; counts as missing: `dmp run` redoes this")
    raise InputError(f"{path}: not a manifest of this version ({where or 'no fields'}); move it away, then `dmp run`")


def known_manifests(workspace: Workspace, paths: Iterable[str]) -> dict[str, Manifest]:
    """Manifests by path; unreadable ones are omitted, with a notice."""
    found = {}
    for path in paths:
        try:
            found[path] = read_manifest(workspace, path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # another run is making it again; or the path is a file among the folders
        except InputError as error:
            notice(str(error))
    return found


def read_record(workspace: Workspace, path: str, kind: type[Record], fix: str) -> Record | None:
    """A small file of the store; None if there is none, or, with a notice, if it is damaged.

    fix: what replaces it, for the notice.
    """
    try:
        data = workspace.fs.cat_file(path)
        return kind.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError:
        notice(f"{path}: damaged{_emptiness(data)}; counts as missing: {fix}")
        return None


def read_sidecar(artefact: Artefact, name: str) -> FileRecord | None:
    """The record of a finished shard; None if it is missing or damaged."""
    return read_record(artefact.workspace, artefact.file(name), FileRecord, "`dmp run` redoes its shard")


def sidecars(artefact: Artefact) -> list[FileRecord]:
    """Records of the shards that are finished, in order, whether or not the whole artefact is."""
    names = [name for name in names_in(artefact.workspace.fs, artefact.path) if _is_sidecar(name)]
    return [record for name in names if (record := read_sidecar(artefact, name)) is not None]


def _is_sidecar(name: str) -> bool:
    return name.startswith("shard-") and name.endswith(".json")


@cache
def notice(message: str) -> None:
    """Log a message once, however often the file is read."""
    _log.warning("%s", message)


def _emptiness(data: bytes) -> str:
    return "" if data.strip(b"\0 \n") else " (empty)"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def split_manifests(workspace: Workspace, folder: str) -> dict[str, Manifest]:
    """Manifests of a dataset's finished splits and parts by the name of their folder: by split, then by age."""
    paths = {f"{folder}/{name}/manifest.json": name for name in names_in(workspace.fs, folder)}
    found = {paths[path]: manifest for path, manifest in known_manifests(workspace, paths).items()}
    return dict(sorted(found.items(), key=lambda item: (item[0].partition("-")[0], item[1].created, item[0])))


@contextmanager
def staged_folder(out: Artefact) -> Iterator[Path]:
    """A local folder that becomes the artefact's content when the block ends without an error.

    It survives errors and kills, so a stage can write checkpoints to it and resume from them. Files that
    should not be published go to a sub-folder whose name starts with a dot.
    """
    scratch = out.workspace.scratch(out)
    with _disk_errors_at(scratch):
        make_folder(scratch)
        yield scratch
    for path in scratch.glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with _disk_errors_at(Path(out.path)):
        _publish_folder(scratch, out)


def _publish_folder(scratch: Path, out: Artefact) -> None:
    fs = out.workspace.fs
    if out.workspace.is_local:
        sync_tree(scratch)
        exchange(fs, str(scratch), out.path)
        return
    remove(fs, out.path)
    names = sorted(path.relative_to(scratch).as_posix() for path in scratch.rglob("*") if path.is_file())
    fs.put([str(scratch / name) for name in names], [out.file(name) for name in names])
    shutil.rmtree(scratch)


@contextmanager
def _disk_errors_at(path: Path) -> Iterator[None]:
    """Raise disk errors of any library as OSError with a path."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or (refused := disk_error(error)) is None:
            raise
        raise at(refused.filename or path, refused) from error


def record_files(out: Artefact) -> list[FileRecord]:
    """Size and digest of every file of an unsharded artefact, except its README."""
    records = []
    for path in sorted(out.workspace.fs.find(out.path)):
        name = path.removeprefix(out.path).lstrip("/")
        if name in ("manifest.json", README) or name.startswith("."):
            continue
        with out.workspace.fs.open(path, "rb") as stream:
            digest = sha256_stream(stream)
        records.append(FileRecord(name=name, bytes=out.workspace.fs.size(path), sha256=digest))
    return records
