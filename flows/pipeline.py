"""The whole DAG as one flow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.logging import get_run_logger
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Cancelled

from dmp_core.config import PipelineConfig
from dmp_core.stages import StageOutput, batches, check_overwrites, one_plan, shard_numbers
from dmp_core.store import Workspace
from flows.call import call_stage, check_deployments
from flows.naming import pipeline_run_name
from flows.server import temporary_server
from flows.settings import chosen, with_overrides
from flows.stages import Overrides
from flows.task_runners import runner_for
from flows.visible import show_artefacts, show_bad_input, show_report


@flow(name="pipeline", flow_run_name=pipeline_run_name, persist_result=False, on_failure=[show_bad_input])
def pipeline(
    *,
    workspace: str = "runs/default",
    force: bool = False,
    only: list[str] | None = None,
    shards: str | None = None,
    overrides: Overrides = [],  # noqa: B006 (becomes the schema's default; never changed)
    config: PipelineConfig,
) -> list[StageOutput] | State[Any]:
    """Run the DAG, or only the artefacts in `only`; complete ones are skipped.

    Args:
        workspace: local folder or fsspec URL.
        force: make artefacts again even if they are complete.
        only: ids of artefacts (`stage/name`) as `dmp plan` lists them.
        shards: redo these shards only, e.g. `3-7`; `only` must then name artefacts with shards.
        overrides: `field.subfield=value`, overrides the configuration.
        config: all settings; see `dmp config show`.
    """
    return run_dag(with_overrides(config, overrides), workspace, force, only, shards)


def run_dag(
    config: PipelineConfig,
    workspace: str,
    force: bool = False,
    only: list[str] | None = None,
    shards: str | None = None,
) -> list[StageOutput] | State[Any]:
    """Every stage of the plan in turn; ends as Cancelled if a stage on another pool was cancelled."""
    outputs: list[StageOutput] = []
    try:
        with one_plan(config) as planned:
            nodes = chosen(planned, only)
            check_deployments(config, nodes)
            check_overwrites(nodes, Workspace(workspace))
            for node in nodes if shards else []:
                shard_numbers(shards, node.stage)
            log = get_run_logger()
            with runner_for(config.runtime):
                for stage, batch in batches(nodes):
                    outputs += (done := call_stage(stage, batch, config, workspace, force=force, shards=shards))
                    made = [output.seconds for output in done if not output.cached]
                    log.info(
                        "%s: %d made in %.1f s, %d complete before", stage, len(made), sum(made), len(done) - len(made)
                    )
    except CancelledRun as cancelled:
        return Cancelled(message=str(cancelled))
    show_artefacts(outputs, config.dataset)
    show_report(outputs, config.dataset, workspace)
    return outputs


def run_pipeline(
    config: PipelineConfig,
    workspace: str,
    force: bool = False,
    only: list[str] | None = None,
    shards: str | None = None,
) -> list[StageOutput]:
    """The flow as a plain function; `dmp run` finds it by the entry point `dmp.runners`."""
    with _own_server() if get_current_settings().api.url is None else nullcontext():
        outputs: list[StageOutput] = pipeline(config=config, workspace=workspace, force=force, only=only, shards=shards)
    return outputs


@contextmanager
def _own_server() -> Iterator[None]:
    # Nobody looks at its heartbeats, and ending their thread takes up to a second per stage.
    with temporary_settings({PREFECT_API_URL: temporary_server(), PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
