"""Artefacts made in this process, in the order of `dmp run`: those of a stage share their models and workers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dmp_core.config import PipelineConfig
from dmp_core.stages import STAGES, execute
from dmp_core.stages.plan import one_plan
from dmp_core.stages.select import batches

DATA = ("prompts", "images", "labels", "quality", "shards")
"""Stages that make a dataset."""


def make(
    workspace: str | Path, config: PipelineConfig, stages: Collection[str] = tuple(STAGES), *, force: bool = False
) -> list[str]:
    """Ids of the artefacts of these stages that were made, not found."""
    with one_plan(config) as planned:
        nodes = [node for node in planned if node.stage in stages]
        outputs = [execute(config, n.id, str(workspace), force=force) for _, batch in batches(nodes) for n in batch]
    return [output.id for output in outputs if not output.cached]
