"""What no run, dataset or plan needs any more: artefacts of settings that were tried, and leftovers of killed runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dmp_core.errors import InputError
from dmp_core.stages.base import Node
from dmp_core.stages.verify import OLD, artefacts_in, left_over
from dmp_core.store import Artefact, Manifest, Workspace
from dmp_core.store.folders import age_of, names_in, remove
from dmp_core.store.locks import locks_in

KEPT = ("report", "shards")
"""Stages whose artefacts are never removed: a report is what is stored of a run, a dataset is the product."""


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nothing refers to."""

    path: str
    reason: str
    bytes: int


def find_garbage(workspace: Workspace, nodes: Iterable[Node]) -> list[Garbage]:
    """Artefacts that neither these nodes nor a stored report, dataset or experiment refers to, directly or not.

    nodes: of the plans whose artefacts stay. What was written within the last hour stays too, and what it was made
        from: a run may need it.
    Raises InputError for an unreadable manifest, since it may refer to any artefact.
    """
    found = artefacts_in(workspace)
    manifests = {artefact.path: artefact.manifest() for artefact in found}
    for artefact in found:
        if manifests[artefact.path] is None and artefact.exists("manifest.json"):
            raise InputError(
                f"{artefact.file('manifest.json')}: damaged, or of another artefact, so what it needs is unknown; run "
                "`dmp verify` first"
            )
    old = {one.path: _old(one.path, workspace) for one in found}
    recent = {one.fingerprint for one in found if not old[one.path]}
    needed = _needed(found, manifests, {node.fingerprint for node in nodes} | _scored(workspace) | recent)
    unused = [one for one in found if one.stage not in KEPT and one.fingerprint not in needed]
    listed = [Garbage(one.path, f"no run needs this {one.stage}", old[one.path]) for one in unused]
    return [*listed, *_leftovers(workspace, needed)]


def busy(workspace: Workspace) -> str | None:
    """What a run seems to make now: something has a lock, or was begun within the last hour; None if nothing."""
    for lock in locks_in(workspace):
        if lock.alive:
            return f"{lock.name} is being made ({lock.holder}); wait until that run has ended"
    for one in artefacts_in(workspace):
        if not one.exists("manifest.json") and not _old(one.path, workspace):
            return f"{one.path} was begun within the last hour; finish that run, or wait"
    return None


def delete(workspace: Workspace, garbage: Iterable[Garbage]) -> None:
    """A manifest goes first, so that a killed deletion leaves nothing that looks complete."""
    for one in garbage:
        remove(workspace.fs, f"{one.path}/manifest.json")
        remove(workspace.fs, one.path)


def _needed(found: list[Artefact], manifests: Mapping[str, Manifest | None], roots: set[str]) -> set[str]:
    """Fingerprints of the roots, and of all that they and the kept artefacts were made from."""
    inputs: dict[str, set[str]] = {}
    for artefact in found:
        manifest = manifests[artefact.path]
        inputs.setdefault(artefact.fingerprint, set()).update(manifest.inputs.values() if manifest else ())
    waiting = [*roots, *(one.fingerprint for one in found if one.stage in KEPT)]
    needed: set[str] = set()
    while waiting:
        fingerprint = waiting.pop()
        if fingerprint not in needed:
            needed.add(fingerprint)
            waiting += inputs.get(fingerprint, ())
    return needed


def _scored(workspace: Workspace) -> set[str]:
    """Fingerprints of the evaluations in the tables of `dmp compare` and `dmp ablate`."""
    import pandas as pd

    found: set[str] = set()
    top = f"{workspace.root}/experiments"
    for path in (
        f"{top}/{name}/{file}"
        for name in names_in(workspace.fs, top)
        for file in names_in(workspace.fs, f"{top}/{name}")
    ):
        if path.endswith(".parquet"):
            with workspace.fs.open(path, "rb") as stream:
                table = pd.read_parquet(stream)
            for column in ("fingerprint", "reference_fingerprint"):
                found |= set(table[column].dropna().astype(str)) if column in table.columns else set()
    return found


def _old(path: str, workspace: Workspace) -> int:
    """Bytes of a folder that was last written more than an hour ago, at least 1; 0 for a newer one."""
    files = workspace.fs.find(path, detail=True).values()
    return max(1, sum(info["size"] for info in files)) if all(age_of(info) > OLD for info in files) else 0


def _leftovers(workspace: Workspace, needed: set[str]) -> Iterator[Garbage]:
    """Temporary files, half-made remakes, and working folders that no plan resumes."""
    seen: set[str] = set()
    for finding in left_over(workspace):
        for path in finding.remove:
            seen.add(path)
            yield Garbage(path, finding.problem, _old(path, workspace) or 1)
    scratch = Path(workspace.root) / ".scratch"
    for folder in sorted(scratch.glob("*/*")) if workspace.is_local else ():
        known = folder.name.rpartition("-")[2] in needed or str(folder) in seen
        if not known and (size := _old(str(folder), workspace)):
            yield Garbage(str(folder), "working folder of a run that has ended", size)
