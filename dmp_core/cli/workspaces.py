"""`dmp status`, `dmp gc`, `dmp diff`: what workspaces hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dmp_core.cli.console import ConfigFile, Json, Overrides, stderr, stdout
from dmp_core.cli.needs import duration
from dmp_core.config import load_config, preset_names
from dmp_core.errors import InputError
from dmp_core.experiments.planning import distinct_nodes, plan_experiment
from dmp_core.experiments.settings import experiment_names, load_experiment
from dmp_core.stages import Node, plan
from dmp_core.stages.overwrites import stored_path
from dmp_core.stages.registry import kind_of
from dmp_core.store import Workspace
from dmp_core.store.folders import names_in

if TYPE_CHECKING:
    from dmp_core.requests.state import WorkspaceState

Place = Annotated[str, typer.Argument(help="Local folder or fsspec URL.")]


def status(workspace: Place = "runs/default", as_json: Json = False) -> None:
    """Show what is complete, what runs and what was interrupted, with the rates of the runs so far."""
    from dmp_core.requests.state import workspace_state

    state = workspace_state(_opened(workspace))
    if as_json:
        rows = [asdict(stage) | {"rate": stage.rate} for stage in state.stages]
        typer.echo(json.dumps(asdict(state) | {"stages": rows}, indent=1))
        return
    _show_stages(workspace, state)
    for lock in state.locks:
        held = "running" if lock.alive else "abandoned; the next run takes it over"
        stdout.print(
            f"{lock.name}: {held} ({lock.holder}, last sign of life {duration(max(1, lock.silent))} ago)",
            soft_wrap=True,
        )
    running = {lock.name for lock in state.locks if lock.alive}
    for one in state.unfinished:
        if not any(name.startswith(one.id.replace("/", "-")) for name in running):
            since = "never" if one.changed is None else f"{duration(max(1, one.changed))} ago"
            parts = f"{one.shards} shards finished, " if one.shards else ""
            stdout.print(f"{one.id}: unfinished ({parts}last written {since}); its run resumes it", soft_wrap=True)


def _show_stages(workspace: str, state: WorkspaceState) -> None:
    table = Table(title=workspace, title_justify="left")
    for column in ("stage", "complete", "samples", "skipped", "time", "samples/s", "MB"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in state.stages:
        rate = "-" if stage.rate is None else f"{stage.rate:g}"
        values = (
            stage.complete,
            stage.samples,
            stage.skipped,
            duration(stage.seconds),
            rate,
            f"{stage.bytes / 1e6:.1f}",
        )
        table.add_row(stage.stage, *map(str, values))
    stdout.print(table)


def gc(
    workspace: Place,
    config: ConfigFile = None,
    overrides: Overrides = None,
    preset: Annotated[str, typer.Option("--preset", "-p", help="With --config or --set: what they override.")] = "mini",
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, they are only listed.")] = False,
    as_json: Json = False,
) -> None:
    """List artefacts that nothing refers to, and leftovers of killed runs; --yes deletes them.

    Kept: every report and dataset and what they were made from, what `dmp compare` and `dmp ablate` scored, what a
    preset or the configuration given here would use, and whatever was written within the last hour.
    """
    from dmp_core.requests.garbage import busy, delete, find_garbage

    place = _opened(workspace)
    if yes and (reason := busy(place)):
        raise InputError(f"{workspace}: {reason}")
    given = plan(load_config(preset, config, overrides)) if config or overrides else []
    found = find_garbage(place, chain(given, _planned(place)))
    if yes:
        delete(place, found)
    total = sum(one.bytes for one in found)
    if as_json:
        typer.echo(json.dumps({"garbage": [asdict(one) for one in found], "bytes": total, "deleted": yes}, indent=1))
        return
    for one in found:
        stdout.print(f"{one.bytes / 1e6:10.1f} MB  {one.path}: {one.reason}", soft_wrap=True)
    done = "deleted" if yes else "would be deleted; --yes deletes them" if found else "to delete"
    stdout.print(f"{len(found)} files and folders, {total / 1e6:.1f} MB {done}", soft_wrap=True)


def _planned(place: Workspace) -> Iterator[Node]:
    """Nodes of all presets, of the experiments with their own preset, and of the stored configurations of datasets."""
    for name in preset_names():
        yield from _nodes(lambda name=name: plan(load_config(name)), f"preset {name}")
    for name in experiment_names():
        planned = lambda name=name: [node for _, node in distinct_nodes(plan_experiment(load_experiment(name)))]  # noqa: E731
        yield from _nodes(planned, f"experiment {name}")
    for file in names_in(place.fs, kind_of("shards").place(place)):
        if file.endswith(".yaml") and place.is_local:
            stored = Path(stored_path(place, file.removesuffix(".yaml")))
            yield from _nodes(lambda stored=stored: plan(load_config(file=stored)), str(stored))


def _nodes(make: Any, source: str) -> list[Node]:
    """The nodes; a plan that cannot be made here, since a folder has moved for example, is reported."""
    try:
        found: list[Node] = make()
    except InputError as error:
        stderr.print(f"{source}: has no plan here, so it keeps nothing ({error})", style="dim", soft_wrap=True)
        return []
    return found


def diff(
    left: Annotated[str, typer.Argument(help="A workspace (its newest run), an artefact's folder, or a YAML file.")],
    right: Annotated[str, typer.Argument(help="The other one.")],
    as_json: Json = False,
) -> None:
    """Compare two runs: the settings that differ, and their scores."""
    from dmp_core.requests.differences import changed_settings, read_run, score_pairs

    runs = read_run(left), read_run(right)
    changed, scores = changed_settings(*runs), score_pairs(*runs)
    if as_json:
        settings = {name: {"left": a, "right": b} for name, (a, b) in changed.items()}
        typer.echo(json.dumps({"settings": settings, "scores": [asdict(pair) for pair in scores]}, indent=1))
        return
    if changed:
        _print_table(("setting", left, right), [(name, _brief(a), _brief(b)) for name, (a, b) in changed.items()])
    else:
        stdout.print("equal settings")
    rows = [
        (pair.modality, pair.split, pair.row, pair.metric, _number(pair.left), _number(pair.right), _change(pair))
        for pair in scores
    ]
    if rows:
        _print_table(("modality", "split", "row", "metric", left, right, "change"), rows)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


def _change(pair: Any) -> str:
    return "—" if pair.left is None or pair.right is None else f"{pair.right - pair.left:+.4g}"


def _opened(workspace: str) -> Workspace:
    place = Workspace(workspace)
    if not place.fs.isdir(place.root):
        raise InputError(f"{workspace}: no such workspace; give the folder that `dmp run --workspace` wrote to")
    return place
