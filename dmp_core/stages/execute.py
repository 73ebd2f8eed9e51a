"""Run one node: skip it if it is complete, else make it and publish its manifest."""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.stages import RuntimeConfig
from dmp_core.errors import InputError
from dmp_core.progress import Progress, current_listener, silent
from dmp_core.stages.plan import Node, find, plan
from dmp_core.store import Artefact, FileRecord, Manifest, Workspace, record_files

Inputs = dict[str, Artefact]

PACKAGES = ("dmp-pipeline", "torch", "diffusers", "transformers", "peft", "mitsuba", "webdataset", "numpy", "pillow")


@dataclass
class StageResult:
    """What a stage hands back: shard records (None: every file in the folder), samples, what to tell."""

    samples: int
    files: list[FileRecord] | None = None
    details: dict[str, Any] | None = None


class Stage(Protocol):
    """The one shape of every stage: a pure function of configuration and inputs that fills `out`."""

    def __call__(
        self,
        config: Any,
        inputs: Inputs,
        out: Artefact,
        *,
        runtime: RuntimeConfig,
        shards: Iterable[int] | None = None,
        progress: Progress = silent,
    ) -> StageResult: ...


@dataclass(frozen=True)
class StageOutput:
    """Small, serialisable word on what a node's run came to."""

    id: str
    path: str
    fingerprint: str
    cached: bool
    samples: int
    seconds: float


def execute(
    config: PipelineConfig,
    node_id: str,
    workspace_url: str,
    *,
    force: bool = False,
    shards: Iterable[int] | None = None,
) -> StageOutput:
    """Make one artefact of the DAG unless it is there already.

    Args:
        node_id: `stage/name` as `dmp plan` lists it.
        force: make it anew even if it is complete.
        shards: redo these shard numbers only.
    Raises:
        InputError: an input is not there yet, or the stage met bad input.
    """
    node = find(plan(config), node_id)
    workspace = Workspace(workspace_url)
    out = node.artefact(workspace)
    done = out.manifest()
    if done is not None and not force and shards is None and not out.missing_files(done):
        _tell("finished", node.id, done.seconds, True)
        announce(node, out)
        return StageOutput(node.id, out.path, out.fingerprint, True, done.samples, done.seconds)
    inputs = {role: _ready(source, workspace) for role, source in node.inputs.items()}
    if force and shards is None and workspace.fs.exists(out.path):
        workspace.fs.rm(out.path, recursive=True)
    return _run(node, inputs, out, config.runtime, shards)


def _ready(node: Node, workspace: Workspace) -> Artefact:
    artefact = node.artefact(workspace)
    manifest = artefact.manifest()
    if manifest is None:
        raise InputError(f"{node.id}: not made yet ({artefact.path}); run `dmp stage {node.stage}` or `dmp run` first")
    if missing := artefact.missing_files(manifest):
        raise InputError(f"{artefact.file(missing[0].name)}: missing or cut short; `dmp run` makes it again")
    return artefact


def _run(
    node: Node, inputs: Inputs, out: Artefact, runtime: RuntimeConfig, shards: Iterable[int] | None
) -> StageOutput:
    stage: Stage = importlib.import_module(f"dmp_core.stages.{node.stage}").run
    _tell("started", node.id)
    started = time.monotonic()
    result = stage(node.config, inputs, out, runtime=runtime, shards=shards, progress=_progress(node.id))
    seconds = round(time.monotonic() - started, 3)
    publish(node, out, result, seconds)
    announce(node, out)
    _tell("finished", node.id, seconds, False)
    return StageOutput(node.id, out.path, out.fingerprint, False, result.samples, seconds)


def announce(node: Node, out: Artefact) -> None:
    """Let the stage bring what lies outside its artefact up to date: a dataset's card, the latest report."""
    module = importlib.import_module(f"dmp_core.stages.{node.stage}") if node.stage in ("shards", "report") else None
    if module is not None:
        module.announce(out)


def publish(node: Node, out: Artefact, result: StageResult, seconds: float) -> Manifest:
    """Write the manifest, the last file of every artefact."""
    manifest = Manifest(
        stage=node.stage,
        stage_version=node.version,
        name=node.name,
        fingerprint=node.fingerprint,
        config=node.config.model_dump(mode="json"),
        inputs={role: source.fingerprint for role, source in node.inputs.items()},
        files=record_files(out) if result.files is None else result.files,
        samples=result.samples,
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        packages=_versions(),
        details=result.details or {},
    )
    out.write_bytes("manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _progress(node_id: str) -> Progress:
    listener = current_listener()
    if listener is None:
        return silent

    def advance(done: int, total: int, message: str = "") -> None:
        listener.advanced(node_id, done, total, message)

    return advance


def _tell(event: str, *values: Any) -> None:
    listener = current_listener()
    if listener is not None:
        notify: Callable[..., None] = getattr(listener, event)
        notify(*values)
