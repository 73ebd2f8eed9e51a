"""`dmp dataset import`: your own images into the same shards, predictions and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmp_core.cli.console import ConfigFile, Overrides, Preset, WorkspaceOption, stdout
from dmp_core.cli.running import run_nodes
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.presets import load_config
from dmp_core.errors import InputError
from dmp_core.requests.imports import check_name, check_pixels, import_settings, store_settings
from dmp_core.stages import Node, check_overwrites, plan
from dmp_core.store import Workspace
from dmp_core.synthesis.own_images import Listing

_DATASET_STAGES = ("prompts", "images", "labels", "quality", "shards")


def import_folder(
    folder: Annotated[Path, typer.Argument(help="Images, or folders of them named train, in_domain …")],
    name: Annotated[str | None, typer.Option(help="Name of the dataset; the folder's by default.")] = None,
    split: Annotated[str | None, typer.Option(help="The split that the images become; arbitrary by default.")] = None,
    hold_out: Annotated[
        float | None, typer.Option(help="Share that becomes in_domain, e.g. 0.2; the rest becomes train.")
    ] = None,
    fit: Annotated[
        str, typer.Option(help="crop | shorter_side | keep: how images are resized to images.resolution.")
    ] = "crop",
    only_dataset: Annotated[bool, typer.Option("--only-dataset", help="No training, prediction or report.")] = False,
    preset: Preset = "mini",
    workspace: WorkspaceOption = "runs/default",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Import your own images, with the labels and captions next to them: dataset, predictions, scores, report."""
    place = Workspace(workspace)
    if place.is_local and Path(place.root).resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"--workspace {workspace}: is inside {folder}, so that its images would be imported the next time; "
            "choose a folder elsewhere"
        )
    base, plain = load_config(preset, config, overrides), load_config(preset)
    settings, listings = import_settings(base, plain, folder, name=name, split=split, hold_out=hold_out, fit=fit)
    nodes = plan(settings)
    check_name(settings, listings, folder, workspace)
    check_overwrites(nodes, place)
    check_pixels(listings, settings.runtime)
    chosen = [node for node in nodes if node.stage in _DATASET_STAGES or not only_dataset]
    stored = store_settings(settings, workspace)
    _announce(listings)
    run_nodes(settings, workspace, chosen)
    _results(settings, place, workspace.rstrip("/"), chosen)
    if chosen == nodes and not any(node.stage == "predict" for node in nodes):
        stdout.print(_why_no_model(settings), soft_wrap=True)
    stdout.print(f"configuration, for every other command: -c {stored}", soft_wrap=True)


def _announce(listings: dict[str, Listing]) -> None:
    for key, listing in listings.items():
        labels = ", ".join(listing.modalities) or "none"
        stdout.print(f"{key}: {len(listing.images)} images; labels next to them: {labels}")
        if listing.ignored:
            some = ", ".join(listing.ignored[:5]) + (" …" if len(listing.ignored) > 5 else "")
            stdout.print(f"  ignored, neither image nor label nor caption: {some}", soft_wrap=True)


def _results(settings: PipelineConfig, place: Workspace, workspace: str, nodes: list[Node]) -> None:
    stdout.print(f"dataset: {workspace}/datasets/{settings.dataset}", soft_wrap=True)
    for node in nodes:
        if node.stage == "predict" and node.config.model_dump()["row"] != "ceiling":
            path = node.artefact(place).path.removeprefix(place.root).lstrip("/")
            stdout.print(f"predictions: {workspace}/{path}", soft_wrap=True)
    if any(node.stage == "report" for node in nodes):
        stdout.print(f"report: {workspace}/report/index.html", soft_wrap=True)


def _why_no_model(settings: PipelineConfig) -> str:
    missing = [name for name in settings.modalities if name not in settings.adapters]
    if settings.splits.keys() == {"train"}:
        return "no predictions: all images are for training; add a folder in_domain, or use --hold-out 0.2"
    return (
        f"no predictions: nothing to train on and no finished adapter for {', '.join(missing)}; "
        f"give one, e.g. --set adapters.{missing[0]}=FOLDER, or images with labels in a folder train"
    )
