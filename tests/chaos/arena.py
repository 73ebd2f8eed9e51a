"""Setup for drills: the undisturbed run to compare with, and the record of what a drill tried and found."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from dmp_core.config import load_config
from dmp_core.stages import batches, plan
from tests import faults
from tests.chaos.drills import Ended, contents, temporary, write_config
from tests.chaos.warm import Warm

_PROGRESS = re.compile(r"Prefect is not installed|\d+/\d+ |\S+: its lock could not be renewed")
"""Lines that commands write to standard error before they end: the current variant of a comparison; on a failing disk,
that a lock grows old."""


@dataclass
class Tally:
    """Attempts of a drill; every fault it found is in one of the lists."""

    name: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    """Runs after which the workspace differs from that of the undisturbed run, or has extra files."""
    hung: list[str] = field(default_factory=list)
    """Runs that did not end in time, or left a process."""
    wrong: list[str] = field(default_factory=list)
    """Runs that did not end as they should: wrong exit code or message."""
    seconds: float = 0.0

    def line(self) -> str:
        wrong = f"{len(self.lost):6} {len(self.hung):6} {len(self.wrong):6}"
        return f"{self.name:44} {self.tried:6} {wrong} {self.seconds:8.0f} s"


class Arena:
    """A folder with the small DAG's undisturbed workspace, complete and as it was before each stage."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = write_config(folder / "config.yaml")
        self.library = faults.build(folder) if faults.compiler() else None
        self.workspace = folder / "workspace"
        self.warm = Warm(self.workspace, self.library)
        self.stages = list(dict.fromkeys(stage for stage, _ in batches(plan(load_config("mini", self.config)))))
        begun = time.monotonic()
        self.right = self._by_stages()
        """Contents of the undisturbed workspace."""
        self.full = time.monotonic() - begun
        """Seconds that the whole undisturbed run takes."""
        self.patience = 120 + 10 * self.full
        """Seconds after which a run hangs."""

    def words(self, *command: str) -> list[str]:
        return [*command, "-c", str(self.config), "-w", str(self.workspace)]

    def _by_stages(self) -> dict[str, bytes]:
        for stage in self.stages:
            self.workspace.mkdir(exist_ok=True)
            shutil.copytree(self.workspace, self.before(stage))
            self.warm.start(*self.words("stage", stage), inline=True)
            ended = self.warm.end(self.workspace, 1200)
            assert ended is not None, stage
            assert ended.code == 0, ended
        shutil.copytree(self.workspace, self.before("end"))
        return contents(self.workspace)

    def before(self, stage: str) -> Path:
        return self.folder / "snapshots" / stage

    def fresh(self, stage: str | None = None) -> None:
        """An empty workspace, or as it was before a stage ran."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        if stage:
            shutil.copytree(self.before(stage), self.workspace)

    def differences(self, right: dict[str, bytes] | None = None) -> list[str]:
        """Missing, extra and different files of the workspace, and temporary files and locks."""
        right, found = self.right if right is None else right, contents(self.workspace)
        named = {name for name in found.keys() | right.keys() if found.get(name) != right.get(name)}
        return sorted(named) + temporary(self.workspace)

    def finish(
        self, tally: Tally, what: str, *command: str, right: dict[str, bytes] | None = None, **options: bool
    ) -> None:
        """Run undisturbed, and record a fault if that does not give the right bytes."""
        self.warm.start(*self.words(*command), **options)
        ended = self.warm.end(self.workspace, self.patience)
        if ended is None:
            tally.hung.append(f"{what}: the rerun")
        elif ended.code or (wrong := self.differences(right)):
            tally.lost.append(f"{what}: {ended.err[-300:] if ended.code else wrong[:5]}")

    def close(self) -> None:
        self.warm.close()


def complain(tally: Tally, what: str, ended: Ended | None, codes: tuple[int, ...], line: str | None = None) -> None:
    """Record faults of a run's end: it should have ended with one of these codes, and printed only that line."""
    if ended is None:
        tally.hung.append(what)
        return
    if ended.alive:
        tally.hung.append(f"{what}: left {ended.alive}")
    if ended.code not in codes:
        tally.wrong.append(f"{what}: exit code {ended.code}, {ended.err[-300:]}")
    said = [text for text in ended.err.splitlines() if not _PROGRESS.match(text)]
    if line is not None and (len(said) != 1 or line not in said[0]):
        tally.wrong.append(f"{what}: said {said[-3:]}")
