"""The commands, one per line."""

from __future__ import annotations

import typer

from dmp_core.cli import dataset, experiments, export, hub, models, own_images, prior, run, settings, verify
from dmp_core.cli import predict as prediction

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
app.command("export")(export.export_dataset)
app.command("compare")(experiments.compare)
app.command("ablate")(experiments.ablate)
app.command("verify")(verify.verify)
dataset.app.command("import")(own_images.import_folder)
dataset.app.command("push")(hub.push_dataset)
dataset.app.command("pull")(hub.pull_dataset)
app.add_typer(dataset.app, name="dataset")
app.add_typer(settings.app, name="config")
app.add_typer(hub.app, name="adapter")
app.add_typer(models.app, name="models")
app.add_typer(prior.app, name="prior")
