"""Shared by all commands: consoles, common options, the progress display."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
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
            raise InputError(f"{path}: {place} is a file; give a folder")
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


class ProgressDisplay:
    """Bars on a terminal; elsewhere one line per finished stage, and one every 15 s for a long one."""

    def __init__(self, console: Console = stdout, then: Listener | None = None) -> None:
        """then: receives the same, as a program has that calls commands."""
        self.console = console
        self.then = then
        self.live = console.is_terminal
        self.said = 0.0
        self.tasks: dict[str, TaskID] = {}
        self.bars = Progress(
            TextColumn("{task.description:34}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
            transient=True,
            disable=not self.live,
        )

    def __enter__(self) -> ProgressDisplay:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

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
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))
        note = ("cached", "dim") if cached else (f"{seconds:6.1f} s", "green")
        self.console.print(Text.assemble(f"  ✓ {plain(name):34} ", note))
