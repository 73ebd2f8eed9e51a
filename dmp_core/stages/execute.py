"""Run one node: skip it if it is complete, else make it and publish its manifest."""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from types import MappingProxyType
from typing import Any

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.errors import InputError
from dmp_core.memory import SHARED, release_memory
from dmp_core.progress import Progress, current_listener, silent
from dmp_core.prompts.base import free_generator
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.base import Inputs, Node, Run, StageResult
from dmp_core.stages.overwrites import check_overwrites
from dmp_core.stages.plan import find, plan
from dmp_core.stages.registry import stage_module
from dmp_core.stages.select import waves
from dmp_core.store import Artefact, Chunk, Lock, Manifest, Workspace, record_files
from dmp_core.store.folders import remove
from dmp_core.weights.resolve import registered

PACKAGES = ("dmp-pipeline", "torch", "diffusers", "transformers", "peft", "mitsuba", "webdataset", "numpy", "pillow")


@dataclass(frozen=True)
class StageOutput:
    """Serialisable summary of one node's run."""

    id: str
    path: str
    """Of the artefact; with the protocol if it is remote."""
    fingerprint: str
    cached: bool
    samples: int
    seconds: float
    published: bool = False
    """By this call: of an artefact's chunks only the last one publishes it."""


def execute(
    config: PipelineConfig,
    node_id: str,
    workspace_url: str,
    *,
    force: bool = False,
    shards: Iterable[int] | None = None,
    spent: float = 0.0,
) -> StageOutput:
    """Make one artefact of the DAG unless it is complete. Runs that share the workspace do not make it twice.

    Args:
        node_id: `stage/name` as `dmp plan` lists it.
        force: make it again even if it is complete.
        shards: redo these shard numbers only; the artefact is published once all its shards exist. Of a `Chunk`, the
            missing ones are made, and nothing is published: that is done by the call without shards that follows.
        spent: seconds that its chunks took in other calls; the manifest's time includes them.
    Raises:
        InputError: an input is missing, or the stage found bad input.
        LockLost: another run took over, since this process was silent for too long.
    """
    nodes = plan(config)
    node = find(nodes, node_id)
    workspace = Workspace(workspace_url, verify_inputs=config.runtime.verify_inputs)
    out = node.artefact(workspace)
    if (found := _found(node, out, force, shards)) is not None:
        return found
    if node.kind.chunked:
        return _make(node, nodes, out, config.runtime, force, shards, spent, check=lambda: None)
    if _joins(node):
        return _join(node, out, config.runtime, force)
    with artefact_lock(node, workspace) as lock:
        lock.wait(lambda holder: _progress(node.id)(0, 1, f"waiting for {holder}"))
        if (found := _found(node, out, force, shards)) is not None:
            return found
        return _make(node, nodes, out, config.runtime, force, shards, spent, check=lock.check)


def artefact_lock(node: Node, workspace: Workspace) -> Lock:
    """The lock of an artefact that is made as a whole."""
    # All configurations share a merged dataset's folder: only one at a time may fill it.
    return Lock(workspace, "-".join([node.stage, node.name, *([] if node.kind.stable else [node.fingerprint])]))


def in_turn(nodes: list[Node], workspace: Workspace) -> Iterator[Node]:
    """Nodes of one stage, each after its inputs; what another run makes at the moment comes last where it can."""
    for wave in waves(nodes):
        held = []
        for node in _by_what_they_share(wave):
            if node.kind.chunked or _joins(node) or artefact_lock(node, workspace).holder() is None:
                yield node
            else:
                held.append(node)
        yield from held


def _by_what_they_share(nodes: list[Node]) -> list[Node]:
    """Nodes that can share a model one after another, otherwise in their order."""
    first: dict[str, int] = {}
    for node in nodes:
        first.setdefault(node.shares or node.id, len(first))
    return sorted(nodes, key=lambda node: first[node.shares or node.id])


def _found(node: Node, out: Artefact, force: bool, shards: Iterable[int] | None) -> StageOutput | None:
    done = out.manifest()
    if done is None or force or shards is not None or outdated(node, done, out.workspace) or out.missing_files(done):
        return None
    _notify("finished", node.id, done.seconds, True)
    announce(node, out)
    return StageOutput(node.id, out.address, out.fingerprint, True, done.samples, done.seconds)


def making(node: Node, inputs: Inputs, out: Artefact, force: bool) -> Artefact:
    """Where the artefact is to be made: in its place, or in a folder next to it while the old one must stay.

    The old one stays until the new one is complete if it is made again, by request or since an input has changed, or
    if it is a dataset's folder that another configuration filled. A killed remake is resumed.
    """
    again = out.again({role: source.published().content() for role, source in inputs.items()})
    done = out.manifest()
    if force or (outdated(node, done, out.workspace) if done is not None else out.exists("manifest.json")):
        return again
    return again if done is None and out.workspace.fs.exists(again.path) else out


def outdated(node: Node, done: Manifest, workspace: Workspace) -> bool:
    """Whether an input was made again since, with another result."""
    for role, source in node.inputs.items():
        manifest = source.artefact(workspace).manifest() if role in done.contents else None
        if manifest is not None and not manifest.is_content(done.contents[role]):
            return True
    return False


def ready_inputs(node: Node, workspace: Workspace) -> Inputs:
    """The node's inputs, by role; raises InputError if one is not complete."""
    return {role: _ready(source, workspace) for role, source in node.inputs.items()}


def _ready(node: Node, workspace: Workspace) -> Artefact:
    artefact = node.artefact(workspace)
    manifest = artefact.manifest()
    if manifest is None:
        raise InputError(f"{node.id}: not made yet ({artefact.path}); run `dmp stage {node.stage}` or `dmp run` first")
    if missing := artefact.missing_files(manifest):
        raise InputError(f"{artefact.file(missing[0].name)}: missing or truncated; `dmp run` makes it again")
    return artefact


def _make(
    node: Node,
    nodes: list[Node],
    out: Artefact,
    runtime: RuntimeConfig,
    force: bool,
    shards: Iterable[int] | None,
    spent: float,
    *,
    check: Callable[[], None],
) -> StageOutput:
    """check: raises if another run has taken over; called before the manifest is published."""
    check_overwrites([node], out.workspace)
    inputs = ready_inputs(node, out.workspace)
    out.drop_damaged_manifest()
    place = making(node, inputs, out, force and (shards is None or isinstance(shards, Chunk)))
    if place != out and (done := place.manifest()) is not None and _put_in_place(place, out):
        announce(node, out)  # an earlier run was killed between exchange and announcement
        return StageOutput(node.id, out.address, out.fingerprint, False, done.samples, done.seconds, published=True)
    run: Run = stage_module(node.stage).run
    _notify("started", node.id)
    started = time.monotonic()
    with _own_memory(node, nodes, out.workspace, runtime):
        also = _same_pass(node, nodes, out.workspace) if shards is None or isinstance(shards, Chunk) else {}
        result = run(node.config, inputs, place, runtime=runtime, shards=shards, progress=_progress(node.id), **also)
    seconds = round(time.monotonic() - started + spent, 3)
    whole = result.files is None or sum(record.planned for record in result.files) == result.samples
    publishes = whole and not isinstance(shards, Chunk)
    if publishes:
        check()
        publish(node, place, result, inputs, seconds)
        if not _put_in_place(place, out) and out.status() != "complete":
            raise OSError(f"{out.address}: its new content has been removed meanwhile; rerun to make it")
        if result.files is None and not out.workspace.is_local:
            remove(out.workspace.fs, out.workspace.shared_scratch(out))
        announce(node, out)
    _notify("finished", node.id, seconds, False)
    return StageOutput(node.id, out.address, out.fingerprint, False, result.made, seconds, published=publishes)


def _joins(node: Node) -> bool:
    """Whether this machine only takes part in what another one makes."""
    return (joins := getattr(stage_module(node.stage), "joins", None)) is not None and joins(node.config)


def _join(node: Node, out: Artefact, runtime: RuntimeConfig, force: bool) -> StageOutput:
    """Take part in what the machine that holds the lock makes; back once that is published."""
    inputs = ready_inputs(node, out.workspace)
    place = making(node, inputs, out, force)
    _notify("started", node.id)
    stage_module(node.stage).join(node.config, inputs, place, runtime=runtime, progress=_progress(node.id))
    with artefact_lock(node, out.workspace) as lock:
        lock.wait()
    done = out.published()
    _notify("finished", node.id, done.seconds, False)
    return StageOutput(node.id, out.address, out.fingerprint, False, done.samples, done.seconds)


@contextmanager
def _own_memory(node: Node, nodes: list[Node], workspace: Workspace, runtime: RuntimeConfig) -> Iterator[None]:
    """No stage inherits another's memory: what artefacts share stays only for further ones of the plan.

    runtime: several processes at a time would each keep theirs while another one's stage runs.
    """
    if node.stage != "prompts":
        free_generator()
    SHARED.clear(but=node.stage)
    try:
        yield
    finally:
        others = [other for other in nodes if other.stage == node.stage and other.id != node.id]
        if node.stage != "prompts" or _all_made(others, workspace):
            free_generator()
        alike = [other for other in others if node.shares is not None and other.shares == node.shares]
        if runtime.task_runner != "thread" or _all_made(alike, workspace):
            SHARED.clear()
        release_memory()


def _all_made(nodes: Iterable[Node], workspace: Workspace) -> bool:
    return all(node.artefact(workspace).manifest() is not None for node in nodes)


def _same_pass(node: Node, nodes: list[Node], workspace: Workspace) -> dict[str, Any]:
    """The stage's argument `also`, if it can fill other missing artefacts in the same pass."""
    find_others = getattr(stage_module(node.stage), "same_pass", None)
    if find_others is None:
        return {}
    others = [(other.config, other.artefact(workspace)) for other in find_others(node, nodes)]
    return {"also": [(settings, out) for settings, out in others if out.manifest() is None]}


def _put_in_place(place: Artefact, out: Artefact) -> bool:
    """Replace an artefact with the new one made next to it; False if that is not complete.

    This happens when another run that made the same shards has put them in place already.
    """
    if place == out:
        return True
    with Lock(out.workspace, f"exchange-{out.stage}-{out.name}-{out.fingerprint}") as lock:
        lock.wait()
        made = place.manifest()
        if made is None or place.missing_files(made):
            return False
        out.take_place(place)
    return True


def announce(node: Node, out: Artefact) -> None:
    """Let the stage update files outside its artefact: a dataset's card, the latest report."""
    if (announced := getattr(stage_module(node.stage), "announce", None)) is not None:
        announced(out)


def publish(node: Node, out: Artefact, result: StageResult, inputs: Inputs, seconds: float) -> Manifest:
    """Write the manifest, the last file of every artefact."""
    manifest = Manifest(
        stage=node.stage,
        stage_version=node.kind.version,
        name=node.name,
        fingerprint=node.fingerprint,
        config=node.config.model_dump(mode="json"),
        inputs={role: source.fingerprint for role, source in node.inputs.items()},
        contents={role: source.published().content() for role, source in inputs.items()},
        files=record_files(out) if result.files is None else result.files,
        samples=result.made,
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        packages=dict(_versions()),
        details=(result.details or {}) | _model(node),
    )
    out.write_bytes("manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest


def _model(node: Node) -> dict[str, Any]:
    """The registry's entry of the weights that the node was made with."""
    found = [model for use in node.models if (model := registered(use.reference, use.revision)) is not None]
    entries = [
        {"id": model.id, "source": model.address, "revision": model.revision, "licence": model.licence}
        | {"identity": model.identity()}
        for model in found
    ]
    return {"model": entries[0]} | ({"further_models": entries[1:]} if entries[1:] else {}) if entries else {}


@cache
def _versions() -> Mapping[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MappingProxyType(found)


def _progress(node_id: str) -> Progress:
    listener = current_listener()
    if listener is None:
        return silent

    def advance(done: int, total: int, message: str = "") -> None:
        listener.advanced(node_id, done, total, message)

    return advance


def _notify(event: str, *values: Any) -> None:
    listener = current_listener()
    if listener is not None:
        notify: Callable[..., None] = getattr(listener, event)
        notify(*values)
