"""The `dmp` command: thin typer functions over the other rooms. Exit codes: 0 done, 2 bad input, 1 else."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from dmp_core.cli import dataset, experiments, models, own_images, prior, run, settings, verify
from dmp_core.cli import predict as prediction
from dmp_core.cli.console import stderr
from dmp_core.errors import InputError

app = typer.Typer(
    name="dmp",
    help="A keyword goes in; a labelled dataset and a dense predictor come out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("plan")(run.show_plan)
app.command("stage")(run.stage)
app.command("predict")(prediction.predict)
app.command("compare")(experiments.compare)
app.command("ablate")(experiments.ablate)
app.command("verify")(verify.verify)
dataset.app.command("import")(own_images.import_folder)
app.add_typer(dataset.app, name="dataset")
app.add_typer(settings.app, name="config")
app.add_typer(models.app, name="models")
app.add_typer(prior.app, name="prior")


def main() -> None:
    """Console entry point; bad input ends with its message alone and code 2."""
    try:
        app()
    except InputError as error:
        stderr.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
