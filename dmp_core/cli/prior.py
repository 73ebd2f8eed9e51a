"""`dmp prior`: the small text-to-image model that the mini preset fine-tunes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import ConfigFile, Overrides, ProgressDisplay, out_folder, stdout
from dmp_core.errors import InputError
from dmp_core.text import plain

app = typer.Typer(no_args_is_help=True, help="The small text-to-image model that the mini preset fine-tunes.")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for the finished model (diffusers format).", callback=out_folder)],
    work: Annotated[
        Path,
        typer.Option(help="Folder for renders, checkpoints and logs; resumed if it exists.", callback=out_folder),
    ],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Render diverse scenes, train VAE, text encoder and U-Net on them, write the model and its card."""
    from dmp_core.prior import load_recipe, train_prior

    _check_free(out)
    recipe = load_recipe(config, overrides)
    with ProgressDisplay() as display:
        display.started("prior")
        train_prior(recipe, out, work, progress=lambda *report: display.advanced("prior", *report))
    stdout.print(f"prior: {out}", soft_wrap=True)


@app.command()
def edit(
    out: Annotated[
        Path,
        typer.Option(help="Folder for the finished model (diffusers' InstructPix2Pix format).", callback=out_folder),
    ],
    work: Annotated[
        Path,
        typer.Option(help="Folder for pairs, checkpoints and logs; resumed if it exists.", callback=out_folder),
    ],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make an editor from the model: render pairs of before and after, and train it to follow instructions."""
    from dmp_core.prior.editor import load_recipe, train_editor

    _check_free(out)
    recipe = load_recipe(config, overrides)
    with ProgressDisplay() as display:
        display.started("editor")
        train_editor(recipe, out, work, progress=lambda *report: display.advanced("editor", *report))
    stdout.print(f"editor: {out}", soft_wrap=True)


@app.command()
def quality(
    model: Annotated[str, typer.Argument(help="Model folder, or shipped:NAME.")],
    scenes: Annotated[Path, typer.Option(help="Folder of rendered scenes: `scenes` in the work folder of `train`.")],
    out: Annotated[
        Path, typer.Option(help="Folder for quality.json, quality.md and neighbours.png.", callback=out_folder)
    ],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Measure a prior on held-out renders: reconstruction, prompt following, similarity, memorisation."""
    from dmp_core.prior import load_recipe
    from dmp_core.prior.quality import measure_folder

    _check_free(out)
    recipe = load_recipe(config, overrides)
    with ProgressDisplay() as display:
        display.started("quality")
        text = measure_folder(recipe, model, scenes, out, lambda *report: display.advanced("quality", *report))
    typer.echo(text)


def _check_free(out: Path) -> None:
    """Raise InputError, before hours of work, if something would be overwritten."""
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out}: exists already, and is not overwritten; move it, or choose another folder")


@app.command()
def card(model: Annotated[str, typer.Argument(help="Model folder, or shipped:NAME.")] = "shipped:mini") -> None:
    """Print the model card."""
    from dmp_core.weights.resolve import resolve_folder

    file = (resolve_folder(model, "priors") or Path(model)) / "README.md"
    if not file.is_file():
        raise InputError(f"{model}: no model card here ({file}); give a model's folder, or shipped:NAME")
    typer.echo(plain(file.read_text(errors="replace"), keep="\n\t"))
