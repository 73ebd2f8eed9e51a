"""Flows for datasets: keywords → shards, and your own images → shards, predictions, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from dmp_core.config import PipelineConfig
from dmp_core.requests.imports import check_name, check_pixels, import_settings, store_settings
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import StageOutput, check_overwrites, plan
from dmp_core.store import Workspace
from flows.naming import dataset_run_name, import_run_name
from flows.pipeline import run_dag
from flows.settings import with_overrides
from flows.stages import Overrides
from flows.visible import show_bad_input


@flow(name="generate-dataset", flow_run_name=dataset_run_name, persist_result=False, on_failure=[show_bad_input])
def generate_dataset(
    *,
    keywords: Annotated[list[str], Field(min_length=1)],
    count: Annotated[int, Field(ge=1)] = 24,
    name: str | None = None,
    split: str = "train",
    part: str | None = None,
    workspace: str = "runs/default",
    force: bool = False,
    overrides: Overrides = [],  # noqa: B006 (becomes the schema's default; never changed)
    config: PipelineConfig,
) -> list[StageOutput] | State[Any]:
    """Make a labelled dataset for keywords, or add them to an existing one; no old shard changes.

    Args:
        keywords: subjects of the images, used in turn.
        count: number of images.
        name: the dataset; by default the first keyword.
        split: split that the images belong to.
        part: name of a part, to add more of the same keywords.
        workspace: local folder or fsspec URL.
        force: make artefacts again even if they are complete.
        overrides: `field.subfield=value`, overrides the configuration.
        config: settings of prompts, images and labels; its splits are not used.
    """
    settings = with_overrides(config, overrides)
    return run_dag(
        dataset_config(settings, workspace, keywords, count, name=name, split=split, part=part), workspace, force
    )


@flow(name="import-dataset", flow_run_name=import_run_name, persist_result=False, on_failure=[show_bad_input])
def import_dataset(
    *,
    folder: str,
    name: str | None = None,
    split: str | None = None,
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None,
    fit: Literal["crop", "shorter_side", "keep"] = "crop",
    workspace: str = "runs/default",
    force: bool = False,
    overrides: Overrides = [],  # noqa: B006 (becomes the schema's default; never changed)
    config: PipelineConfig,
) -> list[StageOutput] | State[Any]:
    """Your own images, with the labels and captions next to them: dataset, predictions, scores, report.

    Args:
        folder: images, or folders of them named train, in_domain …; on the worker's machine.
        name: the dataset; the folder's name by default.
        split: the split that the images become; arbitrary by default.
        hold_out: share that becomes in_domain; the rest becomes train.
        fit: how images are resized to `images.resolution`.
        workspace: local folder or fsspec URL.
        force: make artefacts again even if they are complete.
        overrides: `field.subfield=value`, overrides the configuration.
        config: labelers, training and everything else except the splits.
    """
    settings, listings = import_settings(
        with_overrides(config, overrides), config, Path(folder), name=name, split=split, hold_out=hold_out, fit=fit
    )
    check_name(settings, listings, Path(folder), workspace)
    check_overwrites(plan(settings), Workspace(workspace))
    check_pixels(listings, settings.runtime)
    store_settings(settings, workspace)
    return run_dag(settings, workspace, force)
