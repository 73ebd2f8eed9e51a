"""What a workspace holds: per stage what is complete or unfinished, what runs, and how fast it was."""

from __future__ import annotations

from dataclasses import dataclass, field

from dmp_core.stages.registry import STAGES
from dmp_core.stages.verify import artefacts_in
from dmp_core.store import Artefact, Workspace, sidecars
from dmp_core.store.folders import age_of
from dmp_core.store.locks import Held, locks_in


@dataclass
class StageState:
    """One stage's artefacts in a workspace."""

    stage: str
    complete: int = 0
    samples: int = 0
    skipped: int = 0
    """Samples that failed and were skipped."""
    seconds: float = 0.0
    bytes: int = 0

    @property
    def rate(self) -> float | None:
        """Samples per second, over all that were made here; None if unknown."""
        return round(self.samples / self.seconds, 2) if self.samples and self.seconds else None


@dataclass(frozen=True)
class Unfinished:
    """An artefact without a manifest, or with lost files."""

    id: str
    path: str
    shards: int
    """That are finished."""
    changed: float | None
    """Seconds since its newest file was written; None if it has none."""


@dataclass
class WorkspaceState:
    stages: list[StageState]
    unfinished: list[Unfinished] = field(default_factory=list)
    locks: list[Held] = field(default_factory=list)


def workspace_state(workspace: Workspace) -> WorkspaceState:
    """Read from manifests, sizes and locks alone; no file's content is verified."""
    by_stage = {stage: StageState(stage) for stage in STAGES}
    state = WorkspaceState(list(by_stage.values()), locks=locks_in(workspace))
    for artefact in artefacts_in(workspace):
        manifest = artefact.manifest()
        if manifest is None or artefact.missing_files(manifest):
            state.unfinished.append(_unfinished(artefact))
            continue
        found = by_stage[artefact.stage]
        found.complete += 1
        found.samples += manifest.samples
        found.skipped += len(manifest.skipped)
        found.seconds += manifest.seconds
        found.bytes += sum(record.bytes for record in manifest.files)
    return state


def _unfinished(artefact: Artefact) -> Unfinished:
    ages = [age_of(info) for info in artefact.workspace.fs.find(artefact.path, detail=True).values()]
    shards = len(sidecars(artefact))
    return Unfinished(f"{artefact.stage}/{artefact.name}", artefact.path, shards, min(ages, default=None))
