"""Descriptive names of flow runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.runtime import flow_run


def pipeline_run_name() -> str:
    """`bedrooms (mini) in runs/demo`"""
    return f"{_dataset(flow_run.parameters)} in {flow_run.parameters['workspace']}"


def stage_run_name() -> str:
    """`labels depth train shards 3-7: bedrooms (mini) in runs/demo`"""
    given = flow_run.parameters
    chosen = [given["modality"], given["split"]]
    if len(only := given["only"] or []) == 1:
        chosen = [only[0].partition("/")[2]]
    chosen.append(given["shards"] and f"shards {given['shards']}")
    words = [flow_run.flow_name, *(str(word) for word in chosen if word), "again" if given["force"] else ""]
    return f"{' '.join(word for word in words if word)}: {pipeline_run_name()}"


def dataset_run_name() -> str:
    """`dataset rooms: 200 of kitchen, jewelry shop in runs/demo`"""
    given = flow_run.parameters
    words = ", ".join(given["keywords"][:3]) + (" …" if len(given["keywords"]) > 3 else "")
    named = f"dataset {given['name']}" if given["name"] else "dataset"
    return f"{named}: {given['count']} of {words} in {given['workspace']}"


def import_run_name() -> str:
    """`import photos into runs/own`"""
    return f"import {flow_run.parameters['folder']} into {flow_run.parameters['workspace']}"


def experiment_run_name() -> str:
    """`compare dmp, spade: bedrooms (mini) in runs/demo`"""
    given = flow_run.parameters
    words = [flow_run.flow_name, ", ".join(given["variants"]), ", ".join(given["modalities"])]
    return f"{' '.join(filter(None, words))}: {pipeline_run_name()}"


def _dataset(given: Mapping[str, Any]) -> str:
    config = given["config"]
    values = config if isinstance(config, Mapping) else config.model_dump()
    return f"{values.get('dataset', 'bedrooms')} ({values.get('preset', 'custom')})"
