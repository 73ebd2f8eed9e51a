"""One thin Prefect task per stage. Our manifests decide what is skipped, so Prefect's own cache is off."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from dmp_core.config import PipelineConfig
from dmp_core.processes import unwinding_worker
from dmp_core.progress import current_listener, listening
from dmp_core.stages import STAGES, StageOutput, execute, find, one_plan, own_gpu, shard_text
from dmp_core.store import Chunk, Workspace
from tasks.events import emit_published
from tasks.progress import ProgressArtifact

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a disk on which the user must free space, or that must be mounted for writing."""
_LOST = {
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.parsers.ResponseParserError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "http.client.IncompleteRead",
}
"""Lost connections, and other errors that s3fs itself retries before it raises them. Refusals are not among them."""


def worth_retrying(error: BaseException) -> bool:
    """Storage and network may recover, and a worker process may survive next time; other errors would repeat."""
    lasting = isinstance(error, _LASTING) or getattr(error, "errno", None) in _FULL
    return (isinstance(error, OSError | BrokenExecutor) and not lasting) or _lost_connection(error)


def _lost_connection(error: BaseException) -> bool:
    """Lost connection to an S3 store: its client's errors are not OSError. Matched by name, without the client."""
    return any(f"{kind.__module__}.{kind.__name__}" in _LOST for kind in type(error).__mro__)


def _retry(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and worth_retrying(error)


def run_stage(
    config: PipelineConfig,
    node_id: str,
    workspace_url: str,
    *,
    force: bool = False,
    shards: Iterable[int] | None = None,
    spent: float = 0.0,
    claims_gpu: bool = False,
) -> StageOutput:
    """`execute`, with its progress shown in Prefect's interface and a line in the log.

    A chunk of shards shows no progress: the flow that waits for all chunks shows the total.

    claims_gpu: share out this machine's GPUs with other worker processes (`own_gpu`).
    """
    listener = None if isinstance(shards, Chunk) else ProgressArtifact(config.dataset, current_listener())
    claim = own_gpu(config) if claims_gpu else nullcontext(config)
    with unwinding_worker(), listening(listener), claim as settings, one_plan(settings) as nodes:
        output = execute(settings, node_id, workspace_url, force=force, shards=shards, spent=spent)
    if output.published:
        emit_published(find(nodes, node_id), Workspace(workspace_url), output)
    what = f"shards {shard_text(shards)}" if isinstance(shards, Chunk) else f"{output.samples} samples"
    summary = "was complete" if output.cached else f"made {what} in {output.seconds:.1f} s"
    get_run_logger().info("%s: %s: %s", output.id, summary, output.path)
    return output


STAGE_TASKS: dict[str, Task[Any, Any]] = {
    stage: task(
        name=stage,
        task_run_name="{node_id}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=3,
        retry_delay_seconds=exponential_backoff(5),
        retry_jitter_factor=0.5,
        retry_condition_fn=_retry,
    )(run_stage)
    for stage in STAGES
}

__all__ = ["STAGE_TASKS", "run_stage", "worth_retrying"]
