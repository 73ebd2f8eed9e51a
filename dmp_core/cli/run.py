"""`dmp run`, `dmp plan`, `dmp stage`: the DAG from the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from rich.table import Table

from dmp_core.cli.console import ConfigFile, Json, Overrides, Preset, ProgressDisplay, WorkspaceOption, stdout
from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError, MissingExtra
from dmp_core.progress import listening
from dmp_core.stages import STAGES, Node, StageOutput, announce, plan
from dmp_core.stages.estimate import estimate_seconds
from dmp_core.store import Workspace

Force = Annotated[bool, typer.Option("--force", help="Make it anew even if it is complete.")]


def run(
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    force: Force = False,
) -> None:
    """Run the whole DAG; what is complete already is skipped."""
    settings = load_config(preset, config, overrides)
    outputs = run_nodes(settings, workspace, plan(settings), force)
    made = sum(not output.cached for output in outputs)
    stdout.print(f"{made} artefacts made, {len(outputs) - made} cached." if made else f"all {len(outputs)} cached.")
    report = Workspace(workspace)
    if report.fs.exists(f"{report.root}/report/index.html"):
        stdout.print(f"report: {workspace.rstrip('/')}/report/index.html", soft_wrap=True)


def run_nodes(settings: PipelineConfig, workspace: str, nodes: list[Node], force: bool = False) -> list[StageOutput]:
    """Run these nodes through the registered runner; needs none if all are complete."""
    place = Workspace(workspace)
    artefacts = {node.id: node.artefact(place) for node in nodes}
    if not force and all(artefact.status() == "complete" for artefact in artefacts.values()):
        for node in nodes:
            announce(node, artefacts[node.id])
        return [StageOutput(node.id, artefacts[node.id].path, node.fingerprint, True, 0, 0.0) for node in nodes]
    runner = _runner()
    with ProgressDisplay() as display, listening(display):
        outputs: list[StageOutput] = runner(settings, workspace, force=force, only=[node.id for node in nodes])
    return outputs


def _runner() -> Callable[..., Any]:
    """What runs the DAG: Prefect's flow, found by entry point so that this package need not import it."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # errors reach the terminal once, from us
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    for entry in entry_points(group="dmp.runners"):
        try:
            runner: Callable[..., Any] = entry.load()
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "prefect", "flows") from None
        return runner
    raise InputError("no runner is installed; install the package with: pip install 'dmp-pipeline[flows]'")


def stage(
    name: Annotated[str, typer.Argument(help=" | ".join(STAGES))],
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    force: Force = False,
) -> None:
    """Run one stage alone; its inputs are found in the workspace by their fingerprints."""
    if name not in STAGES:
        raise InputError(f"stage {name!r} does not exist; choose one of: {', '.join(STAGES)}")
    settings = load_config(preset, config, overrides)
    chosen = [node for node in plan(settings) if node.stage == name and _matches(node, task, split)]
    if not chosen:
        raise InputError(f"--task {task} --split {split}: no artefact of stage {name!r} matches; see `dmp plan`")
    for output in run_nodes(settings, workspace, chosen, force):
        stdout.print(f"{output.id}: {output.path}", soft_wrap=True)


def _matches(node: Node, task: str | None, split: str | None) -> bool:
    values = node.config.model_dump()
    fits_task = task is None or values.get("task", values.get("column")) == task
    return fits_task and (split is None or values.get("split") == split)


def show_plan(
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show what a run would do: what is cached, how many samples, how long; runs nothing."""
    settings = load_config(preset, config, overrides)
    place = Workspace(workspace)
    nodes = plan(settings)
    rows = [_row(node, place) for node in nodes]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=f"{settings.preset} → {workspace}", title_justify="left")
    for column in ("artefact", "fingerprint", "status", "samples", "estimate"):
        table.add_column(column, justify="right" if column in ("samples", "estimate") else "left")
    for row in rows:
        table.add_row(row["id"], row["fingerprint"], row["status"], str(row["samples"]), _time(row["seconds"]))
    stdout.print(table)
    todo = [row for row in rows if row["status"] != "complete"]
    total = _time(sum(row["seconds"] for row in todo))
    disk = sum(row["bytes"] for row in todo) / 1e6
    stdout.print(f"{len(rows) - len(todo)} cached, {len(todo)} to make: about {total} and {disk:.0f} MB.")


def _row(node: Node, place: Workspace) -> dict[str, Any]:
    artefact = node.artefact(place)
    status = artefact.status()
    seconds, size = (0.0, 0) if status == "complete" else estimate_seconds(node, place)
    return {
        "id": node.id,
        "fingerprint": node.fingerprint,
        "status": status,
        "samples": node.samples,
        "seconds": round(seconds, 1),
        "bytes": size,
        "path": artefact.path,
    }


def _time(seconds: float) -> str:
    if seconds < 1:
        return "-"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
