"""`dmp prior`: the small text-to-image model that the mini preset fine-tunes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import ConfigFile, Overrides, ProgressDisplay, stdout

app = typer.Typer(no_args_is_help=True, help="The small text-to-image model that the mini preset fine-tunes.")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for the finished model (diffusers format).")],
    work: Annotated[Path, typer.Option(help="Folder for renders, checkpoints and logs; taken up again if it exists.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Render diverse scenes, train VAE, text encoder and U-Net on them, write the model and its card."""
    from dmp_core.models.prior import load_recipe, train_prior

    recipe = load_recipe(config, overrides)
    with ProgressDisplay() as display:
        display.started("prior")
        train_prior(recipe, out, work, progress=lambda *report: display.advanced("prior", *report))
    stdout.print(f"prior: {out}", soft_wrap=True)


@app.command()
def card(model: Annotated[str, typer.Argument(help="Model folder, or shipped:NAME.")] = "shipped:mini") -> None:
    """Print the model card."""
    from dmp_core.models.shipped import resolve_folder

    folder = resolve_folder(model, "priors") or Path(model)
    typer.echo((folder / "README.md").read_text())
