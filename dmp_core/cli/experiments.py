"""`dmp compare`, `dmp ablate`: an experiment's variants over one workspace, then its tables and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from dmp_core.cli.console import ConfigFile, Json, Overrides, WorkspaceOption, stderr, stdout
from dmp_core.cli.needs import describe_needs, describe_sources, duration
from dmp_core.cli.running import run_nodes
from dmp_core.experiments.planning import PlannedVariant, choose, distinct_nodes, plan_experiment, run_experiment
from dmp_core.experiments.settings import Experiment, load_experiment
from dmp_core.stages import Node
from dmp_core.stages.estimate import estimate_seconds
from dmp_core.stages.preflight import check_needs, preflight
from dmp_core.store import Workspace

OtherPreset = Annotated[str | None, typer.Option("--preset", "-p", help="Instead of the experiment's preset.")]
Modalities = Annotated[list[str] | None, typer.Option("--modalities", help="Only these; repeatable, or with commas.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be made and what is cached, with times.")]
_CHOICE = "Only these variants; repeatable, or with commas; all by default."
Variants = Annotated[list[str] | None, typer.Option("--variants", "-m", help=_CHOICE)]


def compare(
    preset: OtherPreset = None,
    modalities: Modalities = None,
    variants: Variants = None,
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compare the methods: Tables 1-3 and Figures 3-5 of the paper, from one workspace; resumes after a kill."""
    experiment = load_experiment("compare")
    planned = plan_experiment(experiment, preset, config, overrides or [], split_commas(modalities))
    _run("compare", experiment, planned, split_commas(variants), workspace, dry_run, as_json)


def ablate(
    preset: OtherPreset = None,
    modalities: Modalities = None,
    variants: Variants = None,
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ablate the method: Table 4 and Figures 6-8 of the paper, rank, spacing, source and training-set size."""
    experiment = load_experiment("ablate")
    planned = plan_experiment(experiment, preset, config, overrides or [], split_commas(modalities))
    _run("ablate", experiment, planned, split_commas(variants), workspace, dry_run, as_json)


def split_commas(values: Sequence[str] | None) -> list[str]:
    """`-t a,b -t c` as [a, b, c]."""
    return [part.strip() for value in values or [] for part in value.split(",") if part.strip()]


def _run(
    name: str,
    experiment: Experiment,
    planned: list[PlannedVariant],
    names: Sequence[str],
    workspace: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    chosen = choose(planned, names)
    if dry_run:
        show(chosen, workspace, as_json)
        return
    place = Workspace(workspace)
    todo = [(v.config, node) for v, node in distinct_nodes(chosen) if node.artefact(place).status() != "complete"]
    if todo:
        check_needs((node for config, node in todo if node.stage not in config.runtime.deployments), todo[0][0].runtime)
    from dmp_core.experiments.outputs import INDEX, write_outputs

    try:
        for number, variant in enumerate(chosen, 1):
            stderr.print(f"{number}/{len(chosen)} {variant.title}", style="bold")
            run_experiment([variant], workspace, run_nodes)
    except Exception:  # show the scores so far after an error, but not after a signal, which must not wait
        write_outputs(name, experiment, planned, place)
        raise
    folder = write_outputs(name, experiment, planned, place)
    if as_json:
        typer.echo(place.fs.cat_file(f"{folder}/{INDEX}").decode())
        return
    stdout.print(f"tables and figures: {folder}", soft_wrap=True)


def show(planned: Sequence[PlannedVariant], workspace: str, as_json: bool = False) -> None:
    """Show what a run of these variants would make; each artefact counts for the first variant that needs it."""
    place = Workspace(workspace)
    rows = {variant.name: _row(variant) for variant in planned}
    missing: list[Node] = []
    estimates: list[dict[str, Any]] = []
    size = on_gpu = 0.0
    for variant, node in distinct_nodes(planned):
        row = rows[variant.name]
        if node.artefact(place).status() == "complete":
            row["cached"] += 1
            continue
        estimate = estimate_seconds(node, place, variant.config.runtime, missing)
        seconds, size_of_node = estimate.seconds, estimate.bytes
        estimates.append({"source": estimate.source, "bytes_source": estimate.size_source, "seconds": seconds})
        row["to_make"] += 1
        row["seconds"] += seconds
        size += size_of_node
        on_gpu += seconds if node.models else 0.0
        missing.append(node)
    needs = preflight(missing, place, int(size), on_gpu, planned[0].config.runtime if planned else None)
    if as_json:
        typer.echo(json.dumps({"variants": list(rows.values()), "preflight": needs.as_dict()}, indent=1))
        return
    table = Table(title=f"{planned[0].config.preset if planned else ''} → {workspace}", title_justify="left")
    for column in ("variant", "method", "to make", "cached", "estimate"):
        table.add_column(column, justify="left" if column in ("variant", "method") else "right")
    for row in rows.values():
        values = (row["title"], row["method"], str(row["to_make"]), str(row["cached"]), duration(row["seconds"]))
        table.add_row(*values)
    stdout.print(table)
    total = duration(sum(row["seconds"] for row in rows.values()))
    stdout.print(f"{len(missing)} artefacts to make: about {total} and {size / 1e6:.0f} MB.")
    for line in describe_sources(estimates, planned[0].config.runtime) if planned else ():
        stdout.print(line, soft_wrap=True)
    for line in describe_needs(needs):
        stdout.print(line, soft_wrap=True)


def _row(variant: PlannedVariant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "title": variant.title,
        "method": variant.config.train.method,
        "to_make": 0,
        "cached": 0,
        "seconds": 0.0,
    }
