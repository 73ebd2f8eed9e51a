"""The whole DAG as one flow."""

from __future__ import annotations

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from dmp_core.config import PipelineConfig
from dmp_core.stages import StageOutput, plan
from tasks import STAGE_TASKS


# One stage at a time: each uses all cores itself, by worker processes or by torch's threads.
@flow(name="pipeline", task_runner=ThreadPoolTaskRunner(max_workers=1), persist_result=False)
def pipeline(
    config: PipelineConfig, workspace: str, force: bool = False, only: list[str] | None = None
) -> list[StageOutput]:
    """Run the DAG, or those nodes of it that `only` names; what is complete is skipped.

    Args:
        config: see `dmp config show`.
        workspace: local folder or fsspec URL.
        force: make artefacts anew even if they are complete.
        only: node ids (`stage/name`) as `dmp plan` lists them.
    """
    futures: dict[str, PrefectFuture[StageOutput]] = {}
    for node in plan(config):
        if only is not None and node.id not in only:
            continue
        before = [futures[source.id] for source in node.inputs.values() if source.id in futures]
        stage = STAGE_TASKS[node.stage].with_options(task_run_name=node.id)
        futures[node.id] = stage.submit(config, node.id, workspace, force=force, wait_for=before)
    wait(list(futures.values()))
    failed = [future.state for future in futures.values() if future.state.is_failed() or future.state.is_crashed()]
    for state in failed:
        state.result(raise_on_failure=True)
    return [future.result() for future in futures.values()]


def run_pipeline(
    config: PipelineConfig, workspace: str, force: bool = False, only: list[str] | None = None
) -> list[StageOutput]:
    """The flow as a plain function; what `dmp run` finds by the entry point `dmp.runners`."""
    return pipeline(config, workspace, force=force, only=only)
