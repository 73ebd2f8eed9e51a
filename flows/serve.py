"""Every deployment of `prefect.yaml`, served from one process: no pools, no workers. For a laptop.

python -m flows.serve [--limit 5]
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import serve
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.settings import get_current_settings
from prefect.utilities.templating import apply_values

from dmp_core.cli.errors import guarded
from dmp_core.errors import InputError
from dmp_core.settings import read_yaml
from flows.deploy import presets

FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"


def listed() -> list[dict[str, Any]]:
    """The entries of `prefect.yaml`, with the presets that its build step puts in."""
    entries: list[dict[str, Any]] = apply_values(read_yaml(FILE)["deployments"], {"dmp": presets()})
    return entries


def served(entry: dict[str, Any]) -> RunnerDeployment:
    """An entry without its pool. Found by its module, so that runs start in this process's folder."""
    file, name = entry["entrypoint"].split(":")
    module = file.removesuffix(".py").replace("/", ".")
    deployment: RunnerDeployment = getattr(import_module(module), name).to_deployment(
        entry["name"],
        tags=entry["tags"],
        parameters=entry["parameters"],
        schedules=[_schedule(**schedule) for schedule in entry.get("schedules", [])],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.entrypoint = f"{module}.{name}"  # flows made from a list share one function's name
    return deployment


def _schedule(cron: str, timezone: str, active: bool) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone=timezone), active=active)


def main(
    limit: Annotated[int, typer.Option(min=2, help="Parallel runs; a run waits for those that it sends.")] = 5,
) -> None:
    """Serve all deployments until Ctrl-C. On a server that `make deploy` has used, they leave their pools."""
    if get_current_settings().api.url is None:
        raise InputError("PREFECT_API_URL is not set; start a server (prefect server start), then export its address")
    entries = listed()
    for entry in entries:
        for name, value in entry["work_pool"]["job_variables"]["env"].items():
            os.environ.setdefault(name, value)
    serve(*map(served, entries), limit=limit)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(guarded(lambda: app(standalone_mode=False)))
