"""`dmp dataset`: make, show and verify datasets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer
from rich.table import Table

from dmp_core.cli.console import ConfigFile, Json, Overrides, Preset, ProgressDisplay, WorkspaceOption, stdout
from dmp_core.cli.running import run_nodes
from dmp_core.config.presets import load_config
from dmp_core.dataset.settings import MOST_SAMPLES
from dmp_core.errors import InputError
from dmp_core.progress import current_listener, listening
from dmp_core.prompts.keywords import read_keywords
from dmp_core.requests.parts import dataset_config, dataset_name
from dmp_core.requests.rejects import is_rejects, rejects_of
from dmp_core.stages import plan
from dmp_core.store import Artefact, Manifest, Workspace
from dmp_core.store.folders import names_in
from dmp_core.store.workspace import read_manifest
from dmp_core.synthesis.patience import made_again

app = typer.Typer(no_args_is_help=True, help="Make, show and verify datasets.")


@app.command()
def new(
    keyword: Annotated[list[str] | None, typer.Option("--keyword", "-k", help="A keyword; repeatable.")] = None,
    keywords: Annotated[Path | None, typer.Option("--keywords", help="File with one keyword per line.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=MOST_SAMPLES, help="Number of images.")] = 24,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; the first keyword by default.")] = None,
    split: Annotated[str, typer.Option(help="Split that the images belong to.")] = "train",
    part: Annotated[str | None, typer.Option(help="Name of a part, to add more of the same keywords.")] = None,
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make a labelled dataset for new keywords, or add them to an existing one: prompts, images, labels, shards."""
    if bool(keyword) == bool(keywords):
        raise InputError("--keyword, --keywords: give one of the two, e.g. --keyword kitchen")
    words = keyword or read_keywords(str(keywords))
    title = dataset_name(name, keyword[0] if keyword else Path(str(keywords)).stem)
    base = load_config(preset, config, overrides)
    settings = dataset_config(base, workspace, words, count, name=title, split=split, part=part)
    run_nodes(settings, workspace, plan(settings))
    stdout.print(f"dataset: {workspace.rstrip('/')}/datasets/{title}/{next(iter(settings.splits))}", soft_wrap=True)


@app.command()
def preview(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=MOST_SAMPLES, help="Number of images.")] = 8,
    split: Annotated[str, typer.Option(help="Split whose first images are made.")] = "train",
    out: Annotated[Path | None, typer.Option(help="Empty folder for the page; a temporary one by default.")] = None,
    preset: Preset = "mini",
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Read finished captions here; nothing is written to it.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make the first images of a split with their captions as one page, outside the workspace."""
    from dmp_core.requests.preview import preview as make_preview

    settings = load_config(preset, config, overrides)
    folder = out or Path(mkdtemp(prefix="dmp-preview-"))
    with ProgressDisplay(then=current_listener(), expected={f"prompts/{split}": 0.0}) as display, listening(display):
        made = make_preview(settings, split, count, folder, workspace)
    stdout.print(f"{made.made} of {made.planned} images of {split}: {made.page}", soft_wrap=True)


@app.command()
def verify(path: Annotated[str, typer.Argument(help="A dataset folder, or one of its splits.")]) -> None:
    """Verify every shard's checksum."""
    broken = []
    for folder, manifest in _manifests(path):
        place = Workspace(folder)
        split = Artefact(place, manifest.stage, manifest.name, manifest.fingerprint, place.root)
        broken += [split.file(name) for name in split.verify()]
    if broken:
        listed = "\n".join(broken)
        raise InputError(f"{listed}: missing or changed since it was made; delete it and rerun, it alone is redone")
    stdout.print(f"{path}: every shard is unchanged")


@app.command()
def show(
    path: Annotated[str, typer.Argument(help="A dataset folder, one of its splits, or SPLIT.rejects.")],
    as_json: Json = False,
) -> None:
    """Show splits, samples and size; of SPLIT.rejects, why each sample was left out."""
    if is_rejects(path):
        _show_rejects(path, as_json)
        return
    rows = [_row(folder, manifest) for folder, manifest in _manifests(path)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=path, title_justify="left")
    again = ("made again", "still miss") if any("made_again" in row for row in rows) else ()
    for column in ("split", "samples", "left out", "shards", "MB", *again):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    stdout.print(table)


def _show_rejects(path: str, as_json: bool) -> None:
    rows = [asdict(reject) for reject in rejects_of(path)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("key", "gate", "reason", title=path, title_justify="left")
    for row in rows:
        table.add_row(*row.values())
    stdout.print(table)


def _row(folder: str, manifest: Manifest) -> dict[str, object]:
    size = sum(record.bytes for record in manifest.files)
    return {
        "split": folder.rsplit("/", 1)[-1],
        "samples": manifest.samples,
        "left_out": sum(manifest.details.get("dropped", {}).values()),
        "shards": len(manifest.files),
        "megabytes": round(size / 1e6, 1),
    } | made_again(manifest.details)


@app.command()
def card(path: Annotated[str, typer.Argument(help="A dataset folder.")]) -> None:
    """Print the dataset card, made again from the manifests."""
    from dmp_core.report.dataset_card import card_from_manifests

    typer.echo(card_from_manifests({folder.rsplit("/", 1)[-1]: values for folder, values in _manifests(path)}))


def _manifests(path: str) -> list[tuple[str, Manifest]]:
    """(folder, manifest) of every split in a dataset folder, or of the split itself."""
    place = Workspace(path)
    own = f"{place.root}/manifest.json"
    each = [f"{place.root}/{name}/manifest.json" for name in names_in(place.fs, place.root)]
    found = [own] if place.fs.exists(own) else [file for file in each if place.fs.exists(file)]
    if not found:
        raise InputError(
            f"{path}: no finished dataset here; give WORKSPACE/datasets/NAME, or make one: dmp dataset new"
        )
    return [(place.address(file.rsplit("/", 1)[0]), read_manifest(place, file)) for file in sorted(found)]
