"""`dmp run`, `dmp plan`, `dmp stage`: the DAG from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from dmp_core.cli.console import ConfigFile, Json, Overrides, Preset, WorkspaceOption, stderr, stdout
from dmp_core.cli.experiments import compare
from dmp_core.cli.needs import describe_needs, describe_sources, duration
from dmp_core.cli.running import notice_other_preset, run_nodes
from dmp_core.config import load_config
from dmp_core.stages import (
    STAGES,
    Node,
    check_overwrites,
    plan,
    select,
    shard_numbers,
    statuses,
)
from dmp_core.stages.estimate import Estimate, estimate_each
from dmp_core.stages.preflight import preflight
from dmp_core.store import Workspace

Force = Annotated[bool, typer.Option("--force", help="Make it again even if it is complete.")]


def run(
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    force: Force = False,
) -> None:
    """Run the whole DAG; complete artefacts are skipped."""
    settings = load_config(preset, config, overrides)
    outputs = run_nodes(settings, workspace, plan(settings), force)
    made = sum(not output.cached for output in outputs)
    stdout.print(f"{made} artefacts made, {len(outputs) - made} cached." if made else f"all {len(outputs)} cached.")
    report = Workspace(workspace)
    if report.fs.exists(f"{report.root}/report/index.html"):
        stdout.print(f"report: {workspace.rstrip('/')}/report/index.html", soft_wrap=True)


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
    """Run a single stage; its inputs are found in the workspace by their fingerprints."""
    settings = load_config(preset, config, overrides)
    nodes = plan(settings)
    chosen = select(nodes, name, modality, split)
    shard_numbers(shards, name)
    for line in _not_trained(chosen):
        stderr.print(line, soft_wrap=True)
    for output in run_nodes(settings, workspace, chosen, force, shards):
        stdout.print(f"{output.id}: {output.path}", soft_wrap=True)
    found = statuses(nodes, Workspace(workspace))
    if stale := [node_id for node_id, status in found.items() if status == "stale"]:
        stdout.print(
            f"stale now: {len(stale)} ({', '.join(stale[:4])}{' …' if len(stale) > 4 else ''}); see `dmp plan`"
        )


def _not_trained(nodes: list[Node]) -> Iterator[str]:
    """A line per train node that trains nothing, whatever --force asks for."""
    for node in nodes:
        if (finished := getattr(node.config, "adapter", None)) is not None:
            yield f"{node.id}: {finished} is a finished adapter, so nothing is trained; --set 'adapters={{}}' trains"


def show_plan(
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    variants: Annotated[list[str] | None, typer.Option(help="For `dmp compare` with these, or `all`.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a run would do: what is cached, how many samples, how long; runs nothing."""
    if variants:
        compare(preset, None, variants, workspace, config, overrides, dry_run=True, as_json=as_json)
        return
    settings = load_config(preset, config, overrides)
    place = Workspace(workspace)
    nodes = plan(settings)
    check_overwrites(nodes, place)
    found = statuses(nodes, place)
    notice_other_preset(settings, place, found)
    unmade = [node for node in nodes if found[node.id] != "complete"]
    estimates = estimate_each(unmade, place, settings.runtime)
    rows = [_row(node, place, found[node.id], estimates.get(node.id)) for node in nodes]
    todo = [row for row in rows if row["status"] != "complete"]
    on_gpu = sum(row["seconds"] for row, node in zip(todo, unmade, strict=True) if node.models)
    needs = preflight(unmade, place, sum(row["bytes"] for row in todo), on_gpu, settings.runtime)
    if as_json:
        typer.echo(json.dumps({"artefacts": rows, "preflight": needs.as_dict()}, indent=1))
        return
    table = Table(title=f"{settings.preset} → {workspace}", title_justify="left")
    for column in ("artefact", "fingerprint", "status", "samples", "estimate"):
        table.add_column(column, justify="right" if column in ("samples", "estimate") else "left")
    for row in rows:
        estimate = duration(row["seconds"]) + (f" {row['source'][0]}" if row["seconds"] >= 1 else "")
        table.add_row(row["id"], row["fingerprint"], row["status"], str(row["samples"]), estimate)
    stdout.print(table)
    total = duration(sum(row["seconds"] for row in todo))
    disk = sum(row["bytes"] for row in todo) / 1e6
    stdout.print(f"{len(rows) - len(todo)} cached, {len(todo)} to make: about {total} and {disk:.0f} MB.")
    for line in describe_sources(todo, settings.runtime):
        stdout.print(line, soft_wrap=True)
    for line in describe_needs(needs):
        stdout.print(line, soft_wrap=True)


def _row(node: Node, place: Workspace, status: str, estimate: Estimate | None) -> dict[str, Any]:
    """estimate: None if there is nothing to make."""
    seconds, size, source, size_source = estimate or (0.0, 0, "", "")
    return {
        "id": node.id,
        "fingerprint": node.fingerprint,
        "status": status,
        "samples": node.samples,
        "seconds": round(seconds, 1),
        "source": source,
        "bytes": size,
        "bytes_source": size_source,
        "path": node.artefact(place).path,
    }
