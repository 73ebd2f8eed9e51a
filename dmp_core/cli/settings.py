"""`dmp config`: show configurations."""

from __future__ import annotations

import typer

from dmp_core.cli.console import ConfigFile, Overrides, Preset
from dmp_core.config import dump, load_config

app = typer.Typer(no_args_is_help=True, help="Show configurations.")


@app.callback()
def _group() -> None:
    """Show configurations."""


@app.command()
def show(preset: Preset = "mini", config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print the complete, resolved configuration as YAML."""
    typer.echo(dump(load_config(preset, config, overrides)), nl=False)
