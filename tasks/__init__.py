"""One thin Prefect task a stage. Skipping is decided by our manifests, so Prefect's own cache is off."""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from dmp_core.stages import STAGES, execute

STAGE_TASKS: dict[str, Task[Any, Any]] = {
    stage: task(name=stage, cache_policy=NO_CACHE, persist_result=False)(execute) for stage in STAGES
}

__all__ = ["STAGE_TASKS"]
