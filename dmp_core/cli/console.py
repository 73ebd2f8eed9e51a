"""Shared by all commands: consoles, common options, the progress display."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dmp_core.errors import InputError
from dmp_core.progress import Listener
from dmp_core.store import Workspace
from dmp_core.text import plain


class PlainConsole(Console):
    """Prints text literally: brackets and colons are not markup, control characters are escaped. Style with `Text`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text, keep="\n"), **options)


stdout = PlainConsole()
stderr = PlainConsole(stderr=True)

Preset = Annotated[str, typer.Option("--preset", "-p", help="A preset of data_manifests/presets.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file that overrides the preset.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="field.subfield=value, overrides all; repeatable.")]


def out_folder(path: Path) -> Path:
    """Callback of options for an output folder: rejects bad ones before hours of work."""
    for place in (path.absolute(), *path.absolute().parents):
        if os.path.lexists(place) and not place.is_dir():
            raise InputError(f"{place}: is a file; give a folder")
    return path


def workspace_folder(url: str) -> str:
    """The same for workspaces, which may be elsewhere."""
    place = Workspace(url)
    if place.is_local:
        out_folder(Path(place.root))
    return url


WorkspaceOption = Annotated[
    str, typer.Option("--workspace", "-w", help="Local folder or fsspec URL.", callback=workspace_folder)
]


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class _Rate(ProgressColumn):
    """Units of work per second."""

    def render(self, task: Task) -> Text:
        early = task.speed is None or (task.elapsed or 0) < 2  # a few units that came at once say nothing
        return Text("" if early else f"{task.speed:.1f}/s")


class _Bars(Progress):
    """The bars of what runs, below the state of all stages."""

    overview: Callable[[], Table | None] = staticmethod(lambda: None)

    def get_renderables(self) -> Iterable[RenderableType]:
        if (table := self.overview()) is not None:
            yield table
        yield from super().get_renderables()


class ProgressDisplay:
    """On a terminal the state of all stages, and a bar with rate and end for what runs; elsewhere one line per finished
    stage, and one every 15 s for a long one."""

    def __init__(
        self,
        console: Console = stdout,
        then: Listener | None = None,
        expected: Mapping[str, float] | None = None,
    ) -> None:
        """then: receives the same, as a program has that calls commands.

        expected: id of every artefact of the run, `stage/name`, → the estimated seconds to make it.
        """
        self.console = console
        self.then = then
        self.live = console.is_terminal
        self.said = 0.0
        self.tasks: dict[str, TaskID] = {}
        self.expected = dict(expected or {})
        self.done: dict[str, bool] = {}
        """Finished artefact → whether it was there before."""
        self.bars = _Bars(
            TextColumn("{task.description:34}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.bars.overview = self._overview

    def __enter__(self) -> ProgressDisplay:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
        if isinstance(error, Exception) and self.expected:
            for name in self.tasks:
                self.console.print(Text.assemble(f"  ✗ {plain(name):34} ", ("stopped", "red")))

    def started(self, name: str) -> None:
        if self.then:
            self.then.started(name)
        self.said = time.monotonic()
        self.tasks[name] = self.bars.add_task(plain(name), total=None, message="")

    def advanced(self, name: str, done: int, total: int, message: str) -> None:
        if self.then:
            self.then.advanced(name, done, total, message)
        if name in self.tasks:
            self.bars.update(self.tasks[name], completed=done, total=total, message=plain(message))
        if not self.live and time.monotonic() - self.said > 15:
            self.said = time.monotonic()
            self.console.print(f"  … {name} {done}/{total} {message}".rstrip())

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        if self.then:
            self.then.finished(name, seconds, cached)
        self.done[name] = cached
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))
        note = ("cached", "dim") if cached else (f"{seconds:6.1f} s", "green")
        self.console.print(Text.assemble(f"  ✓ {plain(name):34} ", note))

    def _overview(self) -> Table | None:
        """Per stage of the run: artefacts made, cached, running and to make; and the estimated rest."""
        if not self.expected:
            return None
        left = sum(seconds for name, seconds in self.expected.items() if name not in self.done)
        rest = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
        title = f"{len(self.done)}/{len(self.expected)} artefacts, about {rest} left"
        table = Table(title=title, title_justify="left", box=None)
        for column in ("stage", "made", "cached", "running", "to make"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for stage in dict.fromkeys(name.partition("/")[0] for name in self.expected):
            names = {name for name in self.expected if name.partition("/")[0] == stage}
            cached = sum(self.done.get(name, False) for name in names)
            made = sum(name in self.done for name in names) - cached
            running = sum(name in self.tasks for name in names)
            counts = (made, cached, running, len(names) - made - cached - running)
            table.add_row(stage, *(str(count or "·") for count in counts))
        return table
