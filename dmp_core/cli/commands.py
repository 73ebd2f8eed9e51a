"""The commands, one per line."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import Annotated

import typer
from typer.models import CommandInfo

from dmp_core.cli import (
    dataset,
    experiments,
    export,
    hub,
    models,
    own_images,
    prior,
    run,
    settings,
    verify,
    web_app,
    workspaces,
)
from dmp_core.cli import predict as prediction
from dmp_core.cli.examples import EXAMPLES

app = typer.Typer(
    name="dmp",
    help="A keyword goes in; a labelled dataset and a dense predictor come out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dmp-pipeline {importlib.metadata.version('dmp-pipeline')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A keyword goes in; a labelled dataset and a dense predictor come out."""


app.command("run")(run.run)
app.command("plan")(run.show_plan)
app.command("stage")(run.stage)
app.command("predict")(prediction.predict)
app.command("app")(web_app.open_app)
app.command("export")(export.export_dataset)
app.command("compare")(experiments.compare)
app.command("ablate")(experiments.ablate)
app.command("verify")(verify.verify)
app.command("status")(workspaces.status)
app.command("gc")(workspaces.gc)
app.command("diff")(workspaces.diff)
dataset.app.command("import")(own_images.import_folder)
dataset.app.command("push")(hub.push_dataset)
dataset.app.command("pull")(hub.pull_dataset)
app.add_typer(dataset.app, name="dataset")
app.add_typer(settings.app, name="config")
app.add_typer(hub.app, name="adapter")
app.add_typer(models.app, name="models")
app.add_typer(prior.app, name="prior")


def commands(group: typer.Typer = app, name: str = "dmp") -> Iterator[tuple[str, CommandInfo]]:
    """(words, command) of every command."""
    for command in group.registered_commands:
        yield f"{name} {command.name or getattr(command.callback, '__name__', '')}", command
    for below in group.registered_groups:
        if below.typer_instance is not None:
            yield from commands(below.typer_instance, f"{name} {below.name}")


for words, command in commands():
    command.epilog = f"Example: {EXAMPLES[words]}"
