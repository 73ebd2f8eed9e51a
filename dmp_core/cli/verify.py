"""`dmp verify`: check everything in a workspace against its manifests and by reading it."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from dmp_core.cli.console import Json, ProgressDisplay, stderr, stdout
from dmp_core.errors import InputError
from dmp_core.store import Workspace

Repair = Annotated[bool, typer.Option("--repair", help="Remove damaged and left-over files.")]


def verify(
    workspace: Annotated[str, typer.Argument(help="Local folder or fsspec URL.")],
    repair: Repair = False,
    as_json: Json = False,
) -> None:
    """Verify every file of a workspace: digests, contents, leftovers. Exit code 2 if damage was found and stays."""
    from dmp_core.stages.verify import repair as remove
    from dmp_core.stages.verify import verify_workspace

    place = Workspace(workspace)
    if not place.fs.isdir(place.root):
        raise InputError(f"{workspace}: no such workspace; give the folder that `dmp run --workspace` wrote to")
    with ProgressDisplay(stderr) as display:
        display.started("verify")
        found = list(verify_workspace(place, partial(display.advanced, "verify")))
    removed = remove(place, found) if repair else []
    damaged = [finding for finding in found if finding.kind == "damaged"]
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in found], "removed": removed}, indent=1))
    else:
        _show(workspace, [(finding.kind, finding.path, finding.problem) for finding in found], len(removed))
    if damaged and not repair:
        raise InputError(
            f"{workspace}: {len(damaged)} files are damaged; `dmp verify {workspace} --repair` removes them, then the "
            "command that made them makes them again"
        )


def _show(workspace: str, rows: list[tuple[str, str, str]], removed: int) -> None:
    if not rows:
        stdout.print(f"{workspace}: everything is unchanged", soft_wrap=True)
        return
    table = Table()
    for column in ("kind", "path", "problem"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)
    if removed:
        stdout.print(f"{removed} files and folders removed; run again the command that made them")
