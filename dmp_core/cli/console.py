"""What every command shares: consoles, common options, the progress display."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

stdout = Console()
stderr = Console(stderr=True)

Preset = Annotated[str, typer.Option("--preset", "-p", help="A preset of data_manifests/presets.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file laid over the preset.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="field.subfield=value, laid over all; repeatable.")]
WorkspaceOption = Annotated[str, typer.Option("--workspace", "-w", help="Local folder or fsspec URL.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class ProgressDisplay:
    """Bars on a terminal; elsewhere one line a finished stage, and one every 15 s for a long one."""

    def __init__(self, console: Console = stdout) -> None:
        self.console = console
        self.live = console.is_terminal
        self.said = 0.0
        self.tasks: dict[str, TaskID] = {}
        self.bars = Progress(
            TextColumn("{task.description:34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}"),
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
        self.said = time.monotonic()
        self.tasks[name] = self.bars.add_task(name, total=None, message="")

    def advanced(self, name: str, done: int, total: int, message: str) -> None:
        if name in self.tasks:
            self.bars.update(self.tasks[name], completed=done, total=total, message=message)
        if not self.live and time.monotonic() - self.said > 15:
            self.said = time.monotonic()
            self.console.print(f"  … {name} {done}/{total} {message}".rstrip(), highlight=False)

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))
        note = "[dim]cached[/]" if cached else f"[green]{seconds:6.1f} s[/]"
        self.console.print(f"  ✓ {name:34} {note}", highlight=False)
