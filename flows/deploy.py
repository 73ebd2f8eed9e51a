"""`make deploy`: work pools, queues, automations and the deployments of `prefect.yaml`. Safe to repeat.

python -m flows.deploy [--pool-type process] [--image NAME] [--gpus 1] [--lost-after 300]
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect.automations import Automation, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import get_current_settings

from dmp_core.cli.errors import guarded
from dmp_core.cli.interrupts import Interrupts
from dmp_core.config import load_config, preset_names
from dmp_core.errors import InputError
from flows.pools import make_pool

FOLDER_IN_IMAGE = "/opt/dmp"
"""Path of the checkout in the container images that docker/ builds."""

HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = [
    f"prefect.flow-run.{state}"
    for state in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", "Paused", "Suspended")
]


def presets() -> dict[str, Any]:
    """Every preset's complete configuration, and the folder that runs start in, for a build step of `prefect.yaml`.

    Complete, since the form in the interface fills missing fields with their own default, not the preset's.
    """
    configs = {name.replace("-", "_"): load_config(name).model_dump(mode="json") for name in preset_names()}
    return {**configs, "root": os.environ.get("DMP_DEPLOYED_ROOT") or str(Path.cwd())}


def main(
    pool_type: Annotated[
        str | None, typer.Option(help="Type of new pools: process, docker or kubernetes; process by default.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image that runs start in, on docker and kubernetes.")] = None,
    gpu_image: Annotated[str | None, typer.Option(help="Another image for the gpu pool.")] = None,
    volume: Annotated[
        list[str] | None, typer.Option(help="For docker, FOLDER_HERE:FOLDER_IN_CONTAINER; may be repeated.")
    ] = None,
    models_volume: Annotated[
        str | None, typer.Option(help="For kubernetes: claim (PVC) of the volume with pulled models.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Parallel runs of the gpu pool, one per GPU; 1 for a new pool.")
    ] = None,
    lost_after: Annotated[
        int, typer.Option(min=10, help="Seconds without a heartbeat after which a run is lost.")
    ] = 300,
    stuck_after: Annotated[int, typer.Option(min=10, help="Seconds that a run may take to start.")] = 900,
) -> None:
    """Create or update pools, queues and automations, then deploy everything in prefect.yaml.

    Of existing pools, only given settings are changed.
    """
    if get_current_settings().api.url is None:
        raise InputError("PREFECT_API_URL is not set; start a server (prefect server start), then export its address")
    root = _pools(
        pool_type,
        {"image": image, "volumes": volume},
        {"image": gpu_image or image, "volumes": volume},
        gpus,
        models_volume,
    )
    for automation in (lost_runs(lost_after), _stuck_runs(stuck_after)):
        save(automation)
    prefect = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    env = {**os.environ, "PYTHONPATH": _import_path(), "DMP_DEPLOYED_ROOT": root}
    raise SystemExit(subprocess.run(prefect, env=env, check=False).returncode)


def _pools(
    kind: str | None, cpu: dict[str, Any], gpu: dict[str, Any], gpus: int | None, models_volume: str | None
) -> str:
    """Make both pools with these variables; returns the folder that runs start in (prefect.yaml has only one)."""
    with get_client(sync_client=True) as client:
        kinds = {
            "cpu": make_pool(client, "cpu", kind, variables=cpu, models_volume=models_volume),
            "gpu": make_pool(
                client, "gpu", kind, variables=gpu, limit=gpus, first_limit=1, models_volume=models_volume
            ),
        }
    in_processes = [kind == "process" for kind in kinds.values()]
    if any(in_processes) and not all(in_processes):
        raise InputError(f"pools {kinds}: both must run processes, or both containers; delete one and deploy again")
    return str(Path.cwd()) if all(in_processes) else FOLDER_IN_IMAGE


def _import_path() -> str:
    """Put the checkout first: its build step and flows are deployed, wherever the package is installed."""
    return os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))


def lost_runs(seconds: int) -> Automation:
    """Fails runs whose machine has died; without this they would keep their place in the queue for ever."""
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
    """Fails runs whose machine has died after they left the queue and before their first heartbeat."""
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


def save(automation: Automation) -> None:
    """Create the automation, or update the one of its name."""
    try:
        automation.id = Automation.read(name=automation.name).id
    except ValueError:
        automation.create()
    else:
        automation.update()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    with Interrupts(line="interrupted; deploying again is safe"):
        sys.exit(guarded(lambda: app(standalone_mode=False)))
