"""`dmp run`, `dmp plan`, `dmp stage`: the DAG from the command line."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from rich.table import Table

from dmp_core.cli.console import ConfigFile, Json, Overrides, Preset, ProgressDisplay, WorkspaceOption, stderr, stdout
from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.progress import listening
from dmp_core.stages import (
    STAGES,
    Node,
    StageOutput,
    announce,
    check_overwrites,
    execute,
    one_plan,
    plan,
    select,
    shard_numbers,
    statuses,
)
from dmp_core.stages.estimate import estimate_seconds
from dmp_core.stages.preflight import Disk, Preflight, check_models, check_workspace, preflight
from dmp_core.store import Workspace

_LAST = ".preset"
"""File in a workspace: which preset was run last."""

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


def run_nodes(
    settings: PipelineConfig, workspace: str, nodes: list[Node], force: bool = False, shards: str | None = None
) -> list[StageOutput]:
    """Run these nodes through the registered runner; needs none if all are complete."""
    place = Workspace(workspace)
    check_overwrites(nodes, place)
    artefacts = {node.id: node.artefact(place) for node in nodes}
    found = statuses(nodes, place)
    notice_other_preset(settings, place, found)
    if not (force or shards) and set(found.values()) <= {"complete"}:
        for node in nodes:
            announce(node, artefacts[node.id])
        return [StageOutput(node.id, artefacts[node.id].address, node.fingerprint, True, 0, 0.0) for node in nodes]
    runner = _runner()
    # Stages on another pool load their weights there; in turn, all of them run here.
    away = {} if runner is _in_turn else settings.runtime.deployments
    here = [node for node in nodes if node.stage not in away]
    todo = [node for node in here if force or found[node.id] != "complete"]
    check_models(todo)
    check_workspace(todo, place)
    if _last_preset(place) != settings.preset:
        place.write_bytes(place.root, _LAST, settings.preset.encode())
    with ProgressDisplay() as display, listening(display):
        outputs: list[StageOutput] = runner(
            settings, workspace, force=force, only=[node.id for node in nodes], shards=shards
        )
    return outputs


def notice_other_preset(settings: PipelineConfig, place: Workspace, found: Mapping[str, str]) -> None:
    """Say on standard error if nothing here belongs to this configuration, and the last run was another preset's."""
    last = _last_preset(place)
    if last is not None and last != settings.preset and not {"complete", "partial"} & set(found.values()):
        text = f"note: {place.url} was last run with --preset {last}; nothing in it fits --preset {settings.preset}"
        stderr.print(text, style="dim", soft_wrap=True)


def _last_preset(place: Workspace) -> str | None:
    try:
        return place.fs.cat_file(f"{place.root}/{_LAST}").decode(errors="replace")
    except FileNotFoundError:
        return None


def _runner() -> Callable[..., Any]:
    """What runs the DAG: Prefect's flow, found by entry point so that this package need not import it.

    Where Prefect is not installed (vLLM's environment cannot hold it), stages run in turn.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # errors reach the terminal once, from us
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    warnings.filterwarnings("ignore", "Failed to create the Prefect home")  # that is our error if it matters
    for entry in entry_points(group="dmp.runners"):
        try:
            runner: Callable[..., Any] = entry.load()
        except ModuleNotFoundError as error:
            if error.name != "prefect":
                raise
            return _in_turn
        return runner
    raise InputError("no runner is installed; install the package with: pip install 'dmp-pipeline[flows]'")


def _in_turn(
    settings: PipelineConfig, workspace: str, *, force: bool, only: list[str], shards: str | None
) -> list[StageOutput]:
    """The same nodes in the same order, without retries and without a record of the run."""
    stderr.print("Prefect is not installed (extra: flows): stages run in turn, without retries.", style="dim")
    numbers = {node_id: shard_numbers(shards, node_id.partition("/")[0]) for node_id in only}
    with one_plan(settings):
        return [execute(settings, node_id, workspace, force=force, shards=numbers[node_id]) for node_id in only]


def stage(
    name: Annotated[str, typer.Argument(help=" | ".join(STAGES))],
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    modality: Annotated[str | None, typer.Option("--modality", "-m", help="Only this modality.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    shards: Annotated[str | None, typer.Option(help="Redo these shards only, e.g. 3-7 or 0,4.")] = None,
    force: Force = False,
) -> None:
    """Run one stage alone; its inputs are found in the workspace by their fingerprints."""
    settings = load_config(preset, config, overrides)
    nodes = plan(settings)
    chosen = select(nodes, name, modality, split)
    shard_numbers(shards, name)
    for output in run_nodes(settings, workspace, chosen, force, shards):
        stdout.print(f"{output.id}: {output.path}", soft_wrap=True)
    found = statuses(nodes, Workspace(workspace))
    if stale := [node_id for node_id, status in found.items() if status == "stale"]:
        stdout.print(
            f"stale now: {len(stale)} ({', '.join(stale[:4])}{' …' if len(stale) > 4 else ''}); see `dmp plan`"
        )


def show_plan(
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    methods: Annotated[list[str] | None, typer.Option(help="For `dmp compare` with these, or `all`.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a run would do: what is cached, how many samples, how long; runs nothing."""
    if methods:
        from dmp_core.cli.experiments import compare

        compare(preset, None, methods, workspace, config, overrides, dry_run=True, as_json=as_json)
        return
    settings = load_config(preset, config, overrides)
    place = Workspace(workspace)
    nodes = plan(settings)
    check_overwrites(nodes, place)
    found = statuses(nodes, place)
    notice_other_preset(settings, place, found)
    rows = [_row(node, place, found[node.id]) for node in nodes]
    todo = [row for row in rows if row["status"] != "complete"]
    unmade = [node for node, row in zip(nodes, rows, strict=True) if row["status"] != "complete"]
    on_gpu = sum(row["seconds"] for row, node in zip(todo, unmade, strict=True) if node.models)
    needs = preflight(unmade, place, sum(row["bytes"] for row in todo), on_gpu)
    if as_json:
        typer.echo(json.dumps({"artefacts": rows, "preflight": needs.as_dict()}, indent=1))
        return
    table = Table(title=f"{settings.preset} → {workspace}", title_justify="left")
    for column in ("artefact", "fingerprint", "status", "samples", "estimate"):
        table.add_column(column, justify="right" if column in ("samples", "estimate") else "left")
    for row in rows:
        table.add_row(row["id"], row["fingerprint"], row["status"], str(row["samples"]), duration(row["seconds"]))
    stdout.print(table)
    total = duration(sum(row["seconds"] for row in todo))
    disk = sum(row["bytes"] for row in todo) / 1e6
    stdout.print(f"{len(rows) - len(todo)} cached, {len(todo)} to make: about {total} and {disk:.0f} MB.")
    for line in describe_needs(needs):
        stdout.print(line, soft_wrap=True)


def describe_needs(needs: Preflight) -> Iterator[str]:
    """A line each for what the machine lacks or the user must know; none if a run without models has it all."""
    if needs.refused:
        yield f"cannot be written: {needs.refused}"
    if not needs.models and not needs.unregistered:
        yield from (_disk_line(disk) for disk in needs.disks if disk.free < disk.needed)
        return
    missing = needs.missing
    yield f"models: {len(needs.models) - len(missing)} of {len(needs.models)} ready"
    for model in missing:
        yield f"  {model.id}: {model.bytes / 1e9:.1f} GB, {model.licence}; {model.problems[0]}; run: {model.command}"
    if len(missing) > 1:
        total = sum(model.bytes for model in missing) / 1e9
        yield f"  all of them, about {total:.1f} GB: dmp models pull {' '.join(model.id for model in missing)}"
    for reference in needs.unregistered:
        yield f"  {reference}: not in the registry; fetched from the hub when it is loaded"
    for model in needs.models:
        if model.gated:
            yield f"  {model.id}: gated; accept its terms at {model.source} and set HF_TOKEN"
    found = f"{needs.gpu} with {needs.vram_found_gb:.0f} GB" if needs.gpu else "no GPU found"
    enough = "" if needs.vram_found_gb >= needs.vram_needed_gb else "  (not enough)"
    yield f"GPU: about {needs.vram_needed_gb:.0f} GB needed; {found}{enough}"
    yield from map(_disk_line, needs.disks)
    yield f"GPU time: about {needs.gpu_hours:.0f} h; guessed for a GPU of the A100 class until stages have run here"


def _disk_line(disk: Disk) -> str:
    unit, name = (1e9, "GB") if disk.needed >= 1e8 else (1e6, "MB")
    short = "" if disk.free >= disk.needed else "  (not enough)"
    return f"disk: {disk.place}: {disk.needed / unit:.1f} {name} needed, {disk.free / unit:.1f} {name} free{short}"


def _row(node: Node, place: Workspace, status: str) -> dict[str, Any]:
    seconds, size = (0.0, 0) if status == "complete" else estimate_seconds(node, place)
    return {
        "id": node.id,
        "fingerprint": node.fingerprint,
        "status": status,
        "samples": node.samples,
        "seconds": round(seconds, 1),
        "bytes": size,
        "path": node.artefact(place).path,
    }


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 1:
        return "-"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
