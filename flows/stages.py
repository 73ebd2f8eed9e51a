"""One flow per stage, so that each can be deployed and rerun alone; made from the list of stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from prefect import Flow, flow
from prefect.flow_engine import FlowRunTimeoutError
from prefect.utilities.timeout import timeout
from pydantic import Field

from dmp_core.config import PipelineConfig
from dmp_core.errors import InputError
from dmp_core.stages import STAGES, StageOutput, plan, select, shard_numbers
from dmp_core.store import Chunk
from flows.naming import stage_run_name
from flows.settings import chosen, with_overrides
from flows.task_runners import run_nodes
from flows.visible import show_artefacts, show_bad_input, show_link

Overrides = Annotated[list[str], Field(description="`field.subfield=value`, overrides the configuration.")]


def _stage_flow(stage: str) -> Flow[Any, Any]:
    @flow(
        name=stage,
        description=f"The stage `{stage}` alone; its inputs are found in the workspace by their fingerprints.",
        flow_run_name=stage_run_name,
        persist_result=False,
        on_failure=[show_bad_input],
    )
    def run_stage(
        *,
        workspace: str = "runs/default",
        force: bool = False,
        modality: str | None = None,
        split: str | None = None,
        shards: str | None = None,
        missing: bool = False,
        only: list[str] | None = None,
        spent: float = 0.0,
        overrides: Overrides = [],  # noqa: B006 (becomes the schema's default; never changed)
        config: PipelineConfig,
    ) -> list[StageOutput]:
        """Run one stage.

        Args:
            workspace: local folder or fsspec URL.
            force: make artefacts again even if they are complete.
            modality: only this one, e.g. `normal`.
            split: only this split.
            shards: redo these shards only, e.g. `3-7` or `0,4`.
            missing: of `shards`, make only those that are missing, and publish nothing: a later run without shards
                does that. A flow that divides an artefact sends such runs.
            only: ids of artefacts (`stage/name`) as `dmp plan` lists them.
            spent: seconds that those runs took, for the artefact's manifest.
            overrides: `field.subfield=value`, overrides the configuration.
            config: all settings; see `dmp config show`.
        """
        settings = with_overrides(config, overrides)
        numbers: Sequence[int] | None = shard_numbers(shards, stage)
        if missing and numbers is not None:
            numbers = Chunk(numbers)
        nodes = select(plan(settings), stage, modality, split)
        with _one_kind_of_bad_input(), _time_limit(stage, settings.runtime.timeouts.get(stage)):
            outputs = run_nodes(settings, chosen(nodes, only), workspace, force, numbers, spent)
        show_artefacts(outputs, f"{settings.dataset} {stage}")
        if stage == "report":
            show_link(outputs)
        return outputs

    return run_stage


@contextmanager
def _one_kind_of_bad_input() -> Iterator[None]:
    """Bad input of any kind ends a run as `InputError`: a run that waits for this one reads that name in its state."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error)) from error


@contextmanager
def _time_limit(stage: str, seconds: int | None) -> Iterator[None]:
    """A time limit from each run's configuration; a deployment would fix the flow's own `timeout_seconds`."""
    try:
        with timeout(seconds, FlowRunTimeoutError):
            yield
    except FlowRunTimeoutError:
        raise TimeoutError(f"{stage}: stopped after {seconds} s (runtime.timeouts)") from None


STAGE_FLOWS: dict[str, Flow[Any, Any]] = {stage: _stage_flow(stage) for stage in STAGES}
globals().update(STAGE_FLOWS)  # a deployment's entry point names a module's attribute: flows/stages.py:train
