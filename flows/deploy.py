"""`make deploy`: work pools, queues, automations and the deployments of `prefect.yaml`. Safe to repeat.

python -m flows.deploy [--pool-type process] [--gpus 1] [--lost-after 90]
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect.automations import Automation, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from dmp_core.config import load_config, preset_names

QUEUES = {"urgent": 1, "normal": 5, "bulk": 10}
"""Queues of every pool with their priority: a worker takes from the lowest number first."""

HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = [
    f"prefect.flow-run.{state}"
    for state in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", "Paused", "Suspended")
]


def presets() -> dict[str, Any]:
    """Every preset's whole configuration, and the checkout's folder; a build step of `prefect.yaml` calls this.

    Whole, since the form in the interface fills what is missing with a field's default, not the preset's.
    """
    configs = {name.replace("-", "_"): load_config(name).model_dump(mode="json") for name in preset_names()}
    return {**configs, "root": str(Path.cwd())}


def main(
    pool_type: Annotated[str, typer.Option(help="process, docker or kubernetes; of pools that do not exist yet.")] = (
        "process"
    ),
    gpus: Annotated[int, typer.Option(min=1, help="Runs that the gpu pool may hold at once: one a GPU.")] = 1,
    lost_after: Annotated[
        int, typer.Option(min=10, help="Seconds without a heartbeat after which a run is lost.")
    ] = 90,
    stuck_after: Annotated[int, typer.Option(min=10, help="Seconds that a run may take to start.")] = 900,
) -> None:
    """Create or update pools, queues and automations, then deploy everything that prefect.yaml names."""
    if get_current_settings().api.url is None:
        raise SystemExit("PREFECT_API_URL is not set; start a server (prefect server start), then export its address")
    with get_client(sync_client=True) as client:
        for name, limit in (("cpu", None), ("gpu", gpus)):
            _pool(client, name, pool_type, limit)
    for automation in (_lost_runs(lost_after), _stuck_runs(stuck_after)):
        _save(automation)
    prefect = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(prefect, env={**os.environ, "PYTHONPATH": _import_path()}, check=False)
    raise SystemExit(done.returncode)


def _import_path() -> str:
    """The checkout first: its build step and flows are to be deployed, wherever the package is installed."""
    return os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))


def _pool(client: SyncPrefectClient, name: str, kind: str, limit: int | None) -> None:
    try:
        client.read_work_pool(name)
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
    except ObjectNotFound:
        template = asyncio.run(get_default_base_job_template_for_infrastructure_type(kind))
        if template is None:
            raise SystemExit(f"--pool-type {kind}: unknown; is prefect-{kind} installed?") from None
        client.create_work_pool(
            WorkPoolCreate(name=name, type=kind, base_job_template=template, concurrency_limit=limit)
        )
    for queue, priority in QUEUES.items():
        try:
            found = client.read_work_queue_by_name(queue, work_pool_name=name)
            client.update_work_queue(found.id, priority=priority)
        except ObjectNotFound:
            client.create_work_queue(queue, work_pool_name=name, priority=priority)


def _lost_runs(seconds: int) -> Automation:
    """A run whose machine died never says so; without this it would hold its place in the queue for ever."""
    return Automation(
        name="DMP: a run that fell silent has crashed",
        description=f"No heartbeat for {seconds} s: worker and flow are gone. Rerun it; it resumes.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDED},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"No heartbeat for {seconds} s: machine lost")],
    )


def _stuck_runs(seconds: int) -> Automation:
    """A run whose machine died between being taken from the queue and its first heartbeat."""
    return Automation(
        name="DMP: a run that does not start has crashed",
        description=f"Taken from the queue {seconds} s ago and not running: its machine is gone. Rerun it.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Pending"},
            expect={"prefect.flow-run.Running", "prefect.flow-run.Scheduled", "prefect.flow-run.Cancelling", *ENDED},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"Did not start within {seconds} s")],
    )


def _save(automation: Automation) -> None:
    try:
        automation.id = Automation.read(name=automation.name).id
    except ValueError:
        automation.create()
    else:
        automation.update()


if __name__ == "__main__":
    typer.run(main)
