"""A workspace (local folder or fsspec URL) and the artefacts in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, ValidationError

from dmp_core.errors import InputError
from dmp_core.passwords import refuse_password
from dmp_core.store.fingerprint import sha256_stream

Status = Literal["complete", "partial", "stale", "missing"]

FOLDERS = {
    "prompts": "prompts",
    "images": "images",
    "labels": "labels",
    "quality": "quality",
    "shards": "datasets",
    "latents": "latents",
    "editor": "editors",
    "train": "adapters",
    "predict": "predictions",
    "evaluate": "evaluations",
    "report": "reports",
}


class FileRecord(BaseModel):
    """What a published file must be."""

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


class Manifest(BaseModel):
    """Published last: its presence says that the artefact is complete. Stored as `manifest.json`."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    stage_version: int
    name: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    contents: dict[str, str] = {}
    """Digest of each input's files as they were when this was made; tells when an input was made anew differently."""
    files: list[FileRecord]
    samples: int
    seconds: float
    created: str
    packages: dict[str, str] = {}
    details: dict[str, Any] = {}
    """What the stage wants to tell: models with revision and licence, failures, statistics."""

    def content(self) -> str:
        """First 12 hex digits of a SHA-256 over the names and digests of all files."""
        files = sorted((record.name, record.sha256) for record in self.files)
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]


class Workspace:
    """The root of all artefacts."""

    def __init__(self, url: str | Path) -> None:
        self.url = refuse_password(str(url), "give it in the variables or files of the storage's client")
        # Other machines write here too, so what a folder held a moment ago is no answer.
        self.fs, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def artefact(self, stage: str, name: str, fingerprint: str) -> Artefact:
        """The place of one stage's output; merged datasets keep a stable, readable path."""
        folder = name if stage == "shards" else f"{name}-{fingerprint}"
        return Artefact(self, stage, name, fingerprint, f"{self.root}/{FOLDERS[stage]}/{folder}")

    def address(self, path: str) -> str:
        """A path in this workspace as other processes can open it: with its protocol, unless it is local."""
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    def write_bytes(self, folder: str, name: str, data: bytes) -> None:
        """No reader sees half a file: folders get it under another name first, object stores only take whole ones."""
        if not self.is_local:
            self.fs.pipe_file(f"{folder}/{name}", data)
            return
        temporary = f"{folder}/.{name.replace('/', '-')}.{uuid.uuid4().hex[:8]}.tmp"
        self.fs.makedirs(folder, exist_ok=True)
        self.fs.pipe_file(temporary, data)
        self.fs.mv(temporary, f"{folder}/{name}")

    def scratch(self, artefact: Artefact) -> Path:
        """A local folder that survives a killed process, so that work in it can be resumed."""
        local_root = Path(self.root) if self.is_local else _cache() / "scratch"
        return local_root / ".scratch" / artefact.stage / f"{artefact.name.replace('/', '-')}-{artefact.fingerprint}"


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

    def write_bytes(self, name: str, data: bytes) -> None:
        self.workspace.write_bytes(self.path, name, data)

    def manifest(self) -> Manifest | None:
        """The manifest if one is published for this very fingerprint, else None."""
        if not self.exists("manifest.json"):
            return None
        try:
            manifest = Manifest.model_validate_json(self.read_bytes("manifest.json"))
        except ValidationError:
            path = self.file("manifest.json")
            raise InputError(f"{path}: not a valid manifest; delete this file and rerun `dmp run`") from None
        return manifest if manifest.fingerprint == self.fingerprint else None

    def published(self) -> Manifest:
        """The manifest of a finished artefact; raises InputError if there is none."""
        manifest = self.manifest()
        if manifest is None:
            raise InputError(f"{self.path}: not complete; run the stage `{self.stage}` first")
        return manifest

    def missing_files(self, manifest: Manifest) -> list[FileRecord]:
        """Files that the manifest names and that are absent or of the wrong size."""
        try:
            listed = self.workspace.fs.find(self.path, detail=True)
        except FileNotFoundError:
            return list(manifest.files)
        sizes = {name.removeprefix(self.path).lstrip("/"): info["size"] for name, info in listed.items()}
        return [record for record in manifest.files if sizes.get(record.name) != record.bytes]

    def status(self) -> Status:
        """complete: manifest and all files; partial: some of it; missing: nothing yet."""
        manifest = self.manifest()
        if manifest is not None and not self.missing_files(manifest):
            return "complete"
        started = self.workspace.fs.exists(self.path) and any(
            record.fingerprint == self.fingerprint for record in sidecars(self)
        )
        return "partial" if manifest is not None or started else "missing"

    def has_older(self) -> bool:
        """Whether the workspace holds this artefact as other settings or inputs made it."""
        fs = self.workspace.fs
        if FOLDERS[self.stage] == "datasets":
            return bool(fs.exists(self.file("manifest.json")))
        folder = self.path.rpartition("/")[0]
        siblings = (path.rsplit("/", 2)[-2] for path in fs.glob(f"{folder}/{self.name}-*/manifest.json"))
        return any(re.fullmatch(rf"{re.escape(self.name)}-[0-9a-f]{{12}}", other) for other in siblings)

    def verify(self) -> list[str]:
        """Names of files whose bytes are not those that the manifest recorded."""
        manifest = self.manifest()
        if manifest is None:
            return ["manifest.json"]
        broken = {record.name for record in self.missing_files(manifest)}
        for record in manifest.files:
            if record.name not in broken:
                with self.workspace.fs.open(self.file(record.name), "rb") as stream:
                    if sha256_stream(stream) != record.sha256:
                        broken.add(record.name)
        return sorted(broken)

    def local_path(self) -> Path:
        """The artefact as a local folder; a remote one is fetched, once for each place and content.

        Raises OSError when what came is not what the manifest says, as when another run makes it anew meanwhile.
        """
        if self.workspace.is_local:
            return Path(self.path)
        place = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        manifest = self.published()
        target = _cache() / "fetched" / f"{place}-{manifest.content()}"
        if not target.exists():
            part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
            part.mkdir(parents=True)
            try:
                self._fetch(manifest, part)
                part.rename(target)
            except OSError:
                if not target.exists():  # else another process was quicker
                    raise
            finally:
                if part.exists():
                    shutil.rmtree(part)
        return target

    def _fetch(self, manifest: Manifest, folder: Path) -> None:
        self.workspace.fs.get(f"{self.path}/", f"{folder}/", recursive=True)
        for record in manifest.files:
            path = folder / record.name
            if not path.is_file() or _sha256(path) != record.sha256:
                raise OSError(
                    f"{self.address}: {record.name} is not what the manifest says; rerun if another run was making it "
                    "anew just now, else make it anew with `--force`"
                )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return sha256_stream(stream)


def sidecars(artefact: Artefact) -> list[FileRecord]:
    """Records of the shards that are finished, in order, whether or not the whole artefact is."""
    paths = sorted(artefact.workspace.fs.glob(artefact.file("shard-*.json")))
    return [FileRecord.model_validate(json.loads(artefact.workspace.fs.cat_file(path))) for path in paths]


def split_manifests(workspace: Workspace, folder: str) -> dict[str, Manifest]:
    """Manifests of a dataset's finished splits and parts by the name of their folder, in the order of their making."""
    paths = workspace.fs.glob(f"{folder}/*/manifest.json")
    found = {path.rsplit("/", 2)[-2]: Manifest.model_validate_json(workspace.fs.cat_file(path)) for path in paths}
    return dict(sorted(found.items(), key=lambda item: (item[0].partition("-")[0], item[1].created, item[0])))


@contextmanager
def staged_folder(out: Artefact) -> Iterator[Path]:
    """A local folder that becomes the artefact's content when the block ends without an error.

    It survives errors and kills, so a stage may leave checkpoints in it and take them up again. Files that
    should not be published go to a sub-folder whose name starts with a dot.
    """
    scratch = out.workspace.scratch(out)
    scratch.mkdir(parents=True, exist_ok=True)
    yield scratch
    for path in scratch.glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    fs = out.workspace.fs
    if fs.exists(out.path):
        fs.rm(out.path, recursive=True)
    fs.makedirs(out.path.rsplit("/", 1)[0], exist_ok=True)
    if out.workspace.is_local:
        scratch.rename(out.path)
    else:
        fs.put(f"{scratch}/", f"{out.path}/", recursive=True)
        shutil.rmtree(scratch)


def record_files(out: Artefact) -> list[FileRecord]:
    """Size and digest of every file of an unsharded artefact."""
    records = []
    for path in sorted(out.workspace.fs.find(out.path)):
        name = path.removeprefix(out.path).lstrip("/")
        if name == "manifest.json" or name.startswith("."):
            continue
        with out.workspace.fs.open(path, "rb") as stream:
            digest = sha256_stream(stream)
        records.append(FileRecord(name=name, bytes=out.workspace.fs.size(path), sha256=digest))
    return records
