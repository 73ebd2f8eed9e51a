"""Resolves a deployment's parameters."""

from __future__ import annotations

from dmp_core.config import PipelineConfig
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.overrides import layered
from dmp_core.stages import STAGES, Node


def with_overrides(config: PipelineConfig, overrides: list[str]) -> PipelineConfig:
    """The configuration with `a.b=value` overrides; raises InputError for a stage that does not exist."""
    if overrides:
        config = validate(*layered(config.model_dump(mode="json"), "config", None, overrides))
    for field, names in (("deployments", config.runtime.deployments), ("timeouts", config.runtime.timeouts)):
        for name in sorted(set(names) - set(STAGES)):
            raise InputError(f"runtime.{field}.{name}: no such stage; choose from: {', '.join(STAGES)}")
    return config


def chosen(nodes: list[Node], only: list[str] | None) -> list[Node]:
    """The nodes with ids in `only`, or all without it; raises InputError for an unknown id."""
    if only is None:
        return nodes
    for unknown in sorted(set(only) - {node.id for node in nodes}):
        raise InputError(f"only: no artefact {unknown!r} among those of this run; `dmp plan` lists them by their ids")
    return [node for node in nodes if node.id in only]
