"""`dmp app`: predict and browse in a browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import ConfigFile, Overrides, Preset, stderr, stdout, workspace_folder

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def open_app(
    folder: Annotated[str | None, typer.Argument(help="Browse this: a dataset, a split, or predictions.")] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Browse all datasets of this workspace.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images that the predictions were made of; else their own.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve at; others than this machine can reach 0.0.0.0.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve at.")] = 7860,
    preset: Preset = "mini",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Open a page in the browser: predict on images, look through datasets and predictions, mark bad samples."""
    from dmp_core.app.page import served
    from dmp_core.app.predicting import Studio
    from dmp_core.app.samples import find_collections

    if workspace is not None:
        workspace_folder(workspace)
    collections = find_collections(folder, workspace)
    studio = Studio(preset, config, overrides or ())
    if host not in _LOOPBACK:
        stderr.print(f"{host}: without a password; whoever reaches it can predict, browse and mark", soft_wrap=True)
    with served(studio, collections, host=host, port=port, images=images) as address:
        stdout.print(f"{address}  (Ctrl+C ends it)", soft_wrap=True)
        threading.Event().wait()
