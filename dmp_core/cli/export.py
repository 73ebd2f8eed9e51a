"""`dmp export`: a finished dataset in other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import out_folder, stdout
from dmp_core.export.registry import FORMATS, Options, export
from dmp_core.requests.rejects import open_with_rejects


def export_dataset(
    path: Annotated[str, typer.Argument(help="A dataset folder, WORKSPACE/datasets/NAME, or one of its splits.")],
    to: Annotated[str, typer.Option("--format", "-f", help=" | ".join(FORMATS))],
    out: Annotated[Path, typer.Option(help="A new folder.", callback=out_folder)],
    split: Annotated[list[str] | None, typer.Option(help="Only this split, or SPLIT.rejects; repeatable.")] = None,
    modality: Annotated[
        str | None, typer.Option("--modality", "-m", help="The labels, for formats with one kind of them.")
    ] = None,
    fov: Annotated[
        float | None, typer.Option(min=1, max=179, help="ply: horizontal field of view, degrees; else the render's.")
    ] = None,
) -> None:
    """Write a dataset in another tool's format; what the gates left out is in SPLIT.rejects."""
    count = export(open_with_rejects(path, split or ()), to, out, Options(modality, fov))
    stdout.print(f"{count} samples: {out}", soft_wrap=True)
