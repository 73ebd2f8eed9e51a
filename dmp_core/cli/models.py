"""`dmp models`: pinned weights."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.table import Table

from dmp_core.cli.console import Json, ProgressDisplay, stdout
from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.stages.opening import open_model, problems_of
from dmp_core.stages.plan import plan
from dmp_core.stages.preflight import models_of
from dmp_core.weights import registry
from dmp_core.weights.download import pull as fetch
from dmp_core.weights.registry import Model

app = typer.Typer(no_args_is_help=True, help="Pinned weights: list, fetch and check them.")

Names = Annotated[list[str] | None, typer.Argument(help="Ids as `dmp models list` shows them.", metavar="[ID]...")]
OfPreset = Annotated[str | None, typer.Option("--preset", "-p", help="All weights that this preset needs.")]


@app.command("list")
def show_list(as_json: Json = False) -> None:
    """List all weights of the registry, with size, licence and whether they are present."""
    models = registry.registry()
    if as_json:
        states = [model.model_dump(mode="json") | {"size": model.size, "state": _state(model)} for model in models]
        typer.echo(json.dumps(states, indent=1))
        return
    own = registry.own_registry()
    title = f"models → {registry.models_dir()}" + (f" (own registry: {own})" if own else "")
    table = Table(title=title, title_justify="left")
    for column in ("id", "stages", "size", "licence", "gated", "state"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=column == "id")
    for model in models:
        gated = "yes" if model.gated else "-"
        name = f"{model.id} ({model.registry})" if model.registry else model.id
        table.add_row(name, ", ".join(model.stages), _size(model), model.licence, gated, _state(model))
    stdout.print(table)


@app.command()
def pull(
    names: Names = None,
    preset: OfPreset = None,
    mirror: Annotated[str | None, typer.Option("--from", help="Folder or URL to fetch from instead.")] = None,
) -> None:
    """Fetch weights, check them, and open them once; resumes interrupted downloads."""
    if not names and not preset:
        raise InputError("dmp models pull: name models (see `dmp models list`), or give --preset paper")
    failures = []
    for model in _chosen(names, preset):
        try:
            _pull(model, mirror)
        except InputError as error:
            failures.append(str(error))
    if failures:
        raise InputError("\n".join(failures))


def _pull(model: Model, mirror: str | None) -> None:
    ready = not registry.check(model, trust=False)
    started = time.monotonic()
    with ProgressDisplay() as display:
        if not ready:
            source = f" (registry {model.registry})" if model.registry else ""
            stdout.print(f"{model.id}{source}: {_size(model)}, {model.licence}: {model.terms}", soft_wrap=True)
        display.started(model.id)
        fetch(model, mirror, lambda *report: display.advanced(model.id, *report), open_model)
        display.finished(model.id, time.monotonic() - started, ready)


@app.command()
def check(
    names: Names = None,
    preset: OfPreset = None,
    full: Annotated[bool, typer.Option("--full", help="Read every file, also unchanged ones.")] = False,
) -> None:
    """Check the present files against the registry; without an id, those that the paper preset needs.

    New files are also opened. Ends with exit code 2 and a line for each file that is missing, truncated or changed, or
    that its network does not take.
    """
    models = _chosen(names, preset or (None if names else "paper"))
    bad = {model.id: problems for model in models if (problems := problems_of(model, full=full))}
    for model in models:
        if model.id not in bad:
            stdout.print(f"  ✓ {model.id}")
            continue
        stdout.print(f"  ✗ {model.id}: {_size(model)}, {model.licence}: {model.terms}", soft_wrap=True)
        for problem in bad[model.id]:
            stdout.print(f"      {problem}", soft_wrap=True)
        by_hand = f" --from FOLDER (save the file from {model.address})" if model.manual else ""
        stdout.print(f"      dmp models pull {model.id}{by_hand}", soft_wrap=True)
    if bad:
        total = sum(model.size for model in models if model.id in bad) / 1e9
        stdout.print(f"{len(bad)} of {len(models)} not ready (about {total:.1f} GB): {', '.join(bad)}", soft_wrap=True)
        raise typer.Exit(2)


def _chosen(names: list[str] | None, preset: str | None) -> list[Model]:
    chosen = list(names or [])
    if preset:
        known, _ = models_of(plan(load_config(preset)))
        chosen += known
    return [registry.get(name) for name in dict.fromkeys(chosen)]


def _size(model: Model) -> str:
    exact = all(file.bytes for file in model.files)
    return f"{'' if exact else '≈'}{model.size / 1e9:.1f} GB"


def _state(model: Model) -> str:
    problems = registry.check(model, read=False)
    if not problems:
        return "ready"
    return f"{len(problems)} of {len(model.files)} files missing or wrong" if registry.present(model) else "missing"
