"""`dmp predict`: a finished adapter on your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import ConfigFile, Overrides, Preset, out_folder, stdout
from dmp_core.config import TASKS
from dmp_core.errors import InputError


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    task: Annotated[str, typer.Option(help=" | ".join(TASKS))],
    adapter: Annotated[str, typer.Option(help="Adapter folder, or shipped:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for the predictions.", callback=out_folder)] = Path("predictions"),
    preset: Preset = "mini",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Predict one property of each image: a label file in the dataset's encoding, and a picture of it.

    What the adapter's card states is used, unless --config or --set says otherwise.
    """
    chosen = next((known for known in TASKS if known == task), None)
    if chosen is None:
        raise InputError(f"--task {task}: choose one of: {', '.join(TASKS)}")
    from dmp_core.stages.predict_files import predict_files, prediction_config

    settings = prediction_config(preset, config, overrides, adapter, chosen)
    for written in predict_files(images, chosen, adapter, out, settings):
        stdout.print(str(written), soft_wrap=True)
