"""Checks before a run: weights and their licences, GPU memory, disk space and write permission."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError, check_installed
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.base import ModelUse, Node, decoders_of
from dmp_core.stages.estimate import estimate_seconds, ram_gb
from dmp_core.stages.gpus import check_gpus
from dmp_core.stages.hardware import find_gpu, memory_gb
from dmp_core.stages.opening import open_uses
from dmp_core.store import Workspace
from dmp_core.training.nodes import this_machine
from dmp_core.weights import registry
from dmp_core.weights.bases import check_base, check_decoder_of
from dmp_core.weights.resolve import registered, resolve_model

CONTEXT_GB = 1.0
"""The device's context and the libraries' workspaces, in addition to tensors."""
NEEDS_GPU_GB = 4.0
"""Models that need more memory than this take many seconds per image, or per caption, on a processor."""


@dataclass
class NeededModel:
    """A model of the registry, and whether this machine has it."""

    id: str
    fields: list[str]
    """Settings that refer to it."""
    bytes: int
    licence: str
    terms: str
    gated: bool
    vram_gb: float
    source: str
    problems: list[str]
    """Problems of its files; empty if it is ready."""
    command: str


@dataclass
class Disk:
    place: str
    """The folders on it."""
    needed: int
    """Bytes."""
    free: int


@dataclass
class Preflight:
    """Requirements of the nodes that are still to be made."""

    models: list[NeededModel] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    """Hub ids that are not in the registry; they are fetched when they are loaded."""
    vram_needed_gb: float = 0.0
    gpu: str | None = None
    """Its name; None if there is none."""
    vram_found_gb: float = 0.0
    disks: list[Disk] = field(default_factory=list)
    refused: str | None = None
    """Why nothing can be written to the workspace; None if it can."""
    gpu_hours: float = 0.0
    ram_needed_gb: float = 0.0
    """Of the machine, for the node that needs most."""
    ram_found_gb: float = 0.0
    lacks_gpu: str | None = None
    """Why a run would be refused for want of a GPU."""

    @property
    def missing(self) -> list[NeededModel]:
        return [model for model in self.models if model.problems]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def models_of(nodes: Iterable[Node]) -> tuple[dict[str, list[str]], list[str]]:
    """(ids of the registry's models that nodes load, each with the settings that refer to it; other hub ids)."""
    known: dict[str, list[str]] = {}
    others: list[str] = []
    for use in dict.fromkeys(use for node in nodes for use in node.models):
        model = registered(use.reference, use.revision)
        if model is not None:
            known.setdefault(model.id, []).append(use.field)
        elif not _is_local(use) and use.reference not in others:
            others.append(use.reference)
    return known, others


def check_models(nodes: Iterable[Node]) -> None:
    """Raise InputError, before any work, for a model that is missing or invalid, or that its network does not take."""
    nodes = list(nodes)
    for use in dict.fromkeys(use for node in nodes for use in node.models):
        resolve_model(use.reference, use.field, revision=use.revision)
        if use.field == "base.model":
            check_base(use.reference, use.revision, fetch=True)
    for base, decoder in decoders_of(nodes):
        check_decoder_of(base, decoder, fetch=True)
    open_uses(nodes)


_PACKAGES = {
    "latents": ("diffusers", "torch"),
    "train": ("accelerate", "diffusers", "peft", "torch"),
    "predict": ("diffusers", "torch"),
    "evaluate": ("matplotlib", "torch"),
    "report": ("contourpy", "matplotlib"),
}
"""What a stage imports whatever its settings are, besides the core's dependencies."""


def packages_of(node: Node) -> Iterator[str]:
    """Packages of extras that a node imports. Those of single labelers and generators report themselves."""
    config: Any = node.config
    yield from _PACKAGES.get(node.stage, ())
    yield from getattr(config, "trackers", ())
    if node.stage == "images" and config.images.kind == "render":
        yield "mitsuba"


def check_needs(nodes: Iterable[Node], runtime: RuntimeConfig) -> None:
    """Raise InputError, before any work, for models that are missing or invalid, or need a GPU where there is none.

    Likewise for packages that are not installed, unless a cluster's workers import them.
    """
    nodes = list(nodes)
    if runtime.cluster is None:
        check_installed(package for node in nodes for package in packages_of(node))
    check_gpus(nodes, runtime)
    for node in nodes:
        if (fitted := getattr(node.config, "train", None)) is not None:
            this_machine(fitted.nodes_of_fit)
    reason = lacks_gpu(nodes, runtime)
    try:
        check_models(nodes)
    except InputError as error:
        raise InputError(f"{reason}; besides, {error}") if reason else error from None
    if reason:
        raise InputError(reason)


def lacks_gpu(nodes: Iterable[Node], runtime: RuntimeConfig) -> str | None:
    """Which models need a GPU that this machine does not have, and the fix; None if it can run them."""
    if runtime.device == "cpu" or runtime.cluster is not None:
        return None
    nodes = list(nodes)
    large = [name for name in models_of(nodes)[0] if registry.get(name).vram_gb > NEEDS_GPU_GB]
    if not large and (runtime.device == "auto" or not any(list(node.config.uses()) for node in nodes)):
        return None
    try:
        from dmp_core.weights.load import has_device, no_device
    except ImportError:  # what needs torch says so itself
        return None
    if any(has_device(name) for name in (("cuda", "mps") if runtime.device == "auto" else (runtime.device,))):
        return None
    if not large:
        return no_device(runtime.device)
    return (
        f"runtime.device: {', '.join(large)} {'needs' if len(large) == 1 else 'need'} a GPU, and "
        f"{'none' if runtime.device == 'auto' else f'no {runtime.device} device'} is found here; run it on a machine "
        "with one, or set runtime.device=cpu to use the processor, which is hundreds of times slower"
    )


def preflight(
    todo: Iterable[Node], workspace: Workspace, size: int, gpu_seconds: float, runtime: RuntimeConfig | None = None
) -> Preflight:
    """Requirements of the nodes in `todo`. Reads no weights and uses no network.

    size: bytes that they will write. gpu_seconds: run time of those that load a model. runtime: None is not checked.
    """
    todo = list(todo)
    known, others = models_of(todo)
    models = [_needed(registry.get(name), fields) for name, fields in known.items()]
    found = Preflight(models, others, gpu_hours=gpu_seconds / 3600)
    needs = [(Path(workspace.root), size)] if workspace.is_local else []
    if runtime is not None:
        found.lacks_gpu = lacks_gpu((node for node in todo if node.stage not in runtime.deployments), runtime)
    if models or others:
        found.vram_needed_gb = max((model.vram_gb + CONTEXT_GB for model in models), default=0.0)
        found.gpu, found.vram_found_gb = find_gpu()
        sizes = {model.id: model.bytes for model in models}
        found.ram_needed_gb = max(
            ram_gb(node, max((sizes[name] for name in models_of([node])[0]), default=0)) for node in todo
        )
        found.ram_found_gb = memory_gb()
        needs.append((registry.models_dir(), sum(model.bytes for model in found.missing)))
    try:
        _check_rights(todo, workspace)
        found.disks = _disks(needs)
    except OSError as error:
        found.refused = f"{error.filename}: {error.strerror}"
    return found


def check_workspace(todo: Iterable[Node], workspace: Workspace) -> None:
    """Raise OSError, before any work, if permission or disk space is missing for what these nodes write."""
    if not workspace.is_local:
        return
    todo = list(todo)
    _check_rights(todo, workspace)
    (disk,) = _disks([(Path(workspace.root), sum(estimate_seconds(node, workspace).bytes for node in todo))])
    if disk.free < disk.needed:
        lack = f"about {disk.needed / 1e6:.1f} MB needed, {disk.free / 1e6:.1f} MB free"
        raise OSError(errno.ENOSPC, lack, workspace.root)


def _check_rights(todo: Iterable[Node], workspace: Workspace) -> None:
    places = [node.artefact(workspace).path for node in todo] if workspace.is_local else []
    locks = [f"{workspace.root}/.locks"] if places else []
    for folder in dict.fromkeys(_existing(Path(place)) for place in (*locks, *places)):
        refused = errno.ENOTDIR
        if folder.is_dir():
            if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                continue
            refused = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(refused, os.strerror(refused), str(folder))


def _needed(model: registry.Model, fields: list[str]) -> NeededModel:
    by_hand = " --from FOLDER" if model.manual else ""
    return NeededModel(
        id=model.id,
        fields=fields,
        bytes=model.size,
        licence=model.licence,
        terms=model.terms,
        gated=model.gated,
        vram_gb=model.vram_gb,
        source=model.address,
        problems=[str(problem) for problem in registry.check(model, read=False)],
        command=f"dmp models pull {model.id}{by_hand}",
    )


def _is_local(use: ModelUse) -> bool:
    return use.reference.startswith((".", "/", "~")) or Path(use.reference).exists()


def _disks(needs: Iterable[tuple[Path, int]]) -> list[Disk]:
    """Needed and free space per disk; places on the same disk share it."""
    disks: dict[int, Disk] = {}
    for place, needed in needs:
        existing = _existing(place)
        disk = disks.setdefault(existing.stat().st_dev, Disk("", 0, shutil.disk_usage(existing).free))
        disk.place = " and ".join(filter(None, (disk.place, str(place))))
        disk.needed += needed
    return list(disks.values())


def _existing(place: Path) -> Path:
    """The place itself, or its nearest existing parent."""
    return next(folder for folder in (place, *place.absolute().parents) if folder.exists())
