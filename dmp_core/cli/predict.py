"""`dmp predict`: a finished adapter on your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import ConfigFile, Overrides, Preset, out_folder, stdout


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    adapter: Annotated[str, typer.Option(help="Adapter folder, or shipped:NAME.")],
    modality: Annotated[
        str | None,
        typer.Option("--modality", "-m", help="What to predict; by default what the adapter's card states."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the predictions.", callback=out_folder)] = Path("predictions"),
    preset: Preset = "mini",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Predict one property of each image: a label file in the dataset's encoding, and a view of it.

    The settings in the adapter's card are used, unless --config or --set overrides them.
    """
    from dmp_core.requests.predict_files import predict_files, prediction_config

    settings, chosen = prediction_config(preset, config, overrides, adapter, modality)
    for written in predict_files(images, chosen, adapter, out, settings):
        stdout.print(str(written), soft_wrap=True)
