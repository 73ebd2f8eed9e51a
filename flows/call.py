"""`call_stage`: one stage as a subflow in this process, or as deployments on another work pool."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import CancelledRun, ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelling
from prefect.types._datetime import now

from dmp_core.config import PipelineConfig
from dmp_core.errors import InputError, RunError
from dmp_core.progress import current_listener
from dmp_core.stages import Node, StageOutput, statuses
from dmp_core.store import Workspace
from flows.stages import STAGE_FLOWS

_SECONDS_BETWEEN_LOOKS = 2.0
_GRACE = 60
"""Seconds by which a child's own time limit exceeds its parent's; it takes effect if the parent has died."""


class StageFailed(RunError):
    """A stage on another work pool did not complete; the message states which, where and why."""


def call_stage(
    stage: str,
    nodes: Sequence[Node],
    config: PipelineConfig,
    workspace: str,
    *,
    force: bool = False,
    shards: str | None = None,
) -> list[StageOutput]:
    """Run these nodes of one stage according to `runtime.deployments`, within `runtime.timeouts`.

    In this process they run one after another. On another pool each is its own run, so that as many run in parallel
    as the pool allows; complete ones are not sent at all.

    Raises:
        InputError: raised by the stage itself, in this process or in another.
        TimeoutError: a node ran too long; all running nodes have been cancelled.
        CancelledRun: the run was cancelled.
        StageFailed: it failed or crashed on another pool.
    """
    seconds = config.runtime.timeouts.get(stage)
    ids = [node.id for node in nodes]
    deployment = config.runtime.deployments.get(stage)
    if deployment is None:
        outputs = STAGE_FLOWS[stage](config=config, workspace=workspace, force=force, shards=shards, only=ids)
        return cast(list[StageOutput], outputs)
    place = Workspace(workspace)
    found = statuses(list(nodes), place)
    cached = [] if force or shards else [node.id for node in nodes if found[node.id] == "complete"]
    sent = [node for node in nodes if node.id not in cached]
    get_run_logger().info("%s: sending %s to %s", stage, ", ".join(node.id for node in sent) or "nothing", deployment)
    values = config.model_dump(mode="json")
    values["runtime"]["timeouts"] = {stage: seconds + _GRACE} if seconds else {}
    # The worker runs in another folder, so a relative path would be another workspace there.
    where = place.root if place.is_local else workspace
    parameters = {"config": values, "workspace": where, "force": force, "shards": shards}
    _run_elsewhere(deployment, sent, parameters, seconds)
    if not shards:  # a selection of shards does not always complete an artefact
        _check_made(sent, place, deployment)
    outputs = [_output(node, place, node.id in cached) for node in nodes]
    if listener := current_listener():
        for output in outputs:
            listener.finished(output.id, output.seconds, output.cached)
    return outputs


def check_deployments(config: PipelineConfig) -> None:
    """Raise InputError, before any work, if the server lacks a deployment of `runtime.deployments`."""
    if not config.runtime.deployments:
        return
    with get_client(sync_client=True) as client:
        for stage, name in config.runtime.deployments.items():
            try:
                client.read_deployment_by_name(name)
            except (ObjectNotFound, ValueError):
                raise InputError(
                    f"runtime.deployments.{stage}: no deployment {name!r} on {client.api_url}; `make deploy` makes "
                    "those of prefect.yaml, `prefect deployment ls` lists them"
                ) from None


def _check_made(nodes: Sequence[Node], place: Workspace, deployment: str) -> None:
    for node in nodes:
        artefact = node.artefact(place)
        if artefact.manifest() is None:
            raise StageFailed(
                f"{node.id} ({deployment}): ended as Completed, but {artefact.file('manifest.json')} is not there; "
                "the worker must share the workspace, under the same path or URL"
            )


def _output(node: Node, place: Workspace, cached: bool) -> StageOutput:
    artefact = node.artefact(place)
    manifest = artefact.manifest()
    samples, seconds = (manifest.samples, manifest.seconds) if manifest else (0, 0.0)
    return StageOutput(node.id, artefact.address, node.fingerprint, cached, samples, seconds)


def _run_elsewhere(deployment: str, nodes: list[Node], parameters: dict[str, Any], seconds: float | None) -> None:
    """One child run per node, each as soon as its inputs are done; if the wait ends early, the rest is cancelled."""
    waiting = {node.id: node for node in nodes}
    running: dict[str, UUID] = {}
    with get_client(sync_client=True) as client:
        try:
            while waiting or running:
                undone = {*waiting, *running}
                for node in [node for node in waiting.values() if not undone & {i.id for i in node.inputs.values()}]:
                    chosen = {**parameters, "only": [node.id]}
                    running[node.id] = run_deployment(deployment, parameters=chosen, timeout=0).id
                    del waiting[node.id]
                for node_id, run_id in list(running.items()):
                    title = f"{node_id} ({deployment})"
                    if _is_done(_read(client, run_id, title), title, seconds):
                        del running[node_id]
                time.sleep(_SECONDS_BETWEEN_LOOKS if running else 0)
        except BaseException:
            for node_id, run_id in running.items():
                _cancel(client, run_id, node_id)
            raise


def _read(client: SyncPrefectClient, run_id: UUID, title: str) -> FlowRun:
    try:
        return client.read_flow_run(run_id)
    except ObjectNotFound:
        raise StageFailed(f"{title}: its run {run_id} was deleted") from None


def _is_done(run: FlowRun, title: str, seconds: float | None) -> bool:
    state = run.state
    if state is None or not state.is_final():
        if seconds and run.start_time and (now("UTC") - run.start_time).total_seconds() > seconds:
            raise TimeoutError(f"{title}: stopped after {seconds} s (runtime.timeouts)")
        return False
    if state.is_completed():
        return True
    if state.is_cancelled():
        raise CancelledRun(f"{title}: was cancelled")
    if found := re.search(r"\bInputError: (.+)", state.message or "", re.DOTALL):
        raise InputError(found[1])
    raise StageFailed(f"{title}: ended as {state.name}: {state.message or 'no message'}")


def _cancel(client: SyncPrefectClient, run_id: UUID, node_id: str) -> None:
    """Cancel a run, or log a warning, so that the other runs are cancelled too and the first error is reported."""
    try:
        state = client.read_flow_run(run_id).state
        if state is None or not state.is_final():
            client.set_flow_run_state(run_id, Cancelling(message="The flow that requested it has ended."))
    except Exception as error:
        get_run_logger().warning("%s: its run %s could not be cancelled (%s)", node_id, run_id, error)
