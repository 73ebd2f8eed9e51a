"""`call_stage`: one stage as a subflow in this process, or as deployments on another work pool."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import CancelledRun, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.states import Cancelling
from prefect.types._datetime import now

from dmp_core.config import PipelineConfig
from dmp_core.errors import InputError, RunError
from dmp_core.progress import current_listener
from dmp_core.stages import Node, StageOutput, artefact_lock, statuses
from dmp_core.store import Lock, Workspace
from flows.stages import STAGE_FLOWS

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 2.0
_OUTAGE = 600.0
"""Seconds for which the server may be away before the wait for other runs ends."""
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
    _Elsewhere(deployment, place, parameters, seconds, config.runtime.resend).run(sent)
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


class _Elsewhere:
    """Runs of a deployment, one per node; each starts as soon as its inputs are done."""

    def __init__(
        self, deployment: str, place: Workspace, parameters: dict[str, Any], seconds: float | None, resend: int
    ) -> None:
        self.deployment, self.place, self.parameters = deployment, place, parameters
        self.seconds, self.resend = seconds, resend
        self.running: dict[str, UUID] = {}
        self.sent: Counter[str] = Counter()
        self.locks: dict[str, Lock] = {}

    def run(self, nodes: Sequence[Node]) -> None:
        """Wait for all; if the wait ends early, the rest is cancelled."""
        waiting = {node.id: node for node in nodes}
        with get_client(sync_client=True) as client:
            try:
                while waiting or self.running:
                    undone = {*waiting, *self.running}
                    for node in list(waiting.values()):
                        if not undone & {source.id for source in node.inputs.values()}:
                            self._send(node)
                            del waiting[node.id]
                    for node in [node for node in nodes if node.id in self.running]:
                        if self._is_over(client, node):
                            del self.running[node.id]
                    time.sleep(_SECONDS_BETWEEN_LOOKS if self.running else 0)
            except BaseException:
                for node_id, run_id in self.running.items():
                    _cancel(client, run_id, node_id)
                raise

    def _send(self, node: Node) -> None:
        parameters = {**self.parameters, "only": [node.id]}
        sent = _through_outages(lambda: run_deployment(self.deployment, parameters=parameters, timeout=0))
        self.running[node.id] = sent.id
        self.sent[node.id] += 1

    def _is_over(self, client: SyncPrefectClient, node: Node) -> bool:
        """A run that crashed is sent again, unless its lock or its artefact shows that it did not."""
        title = f"{node.id} ({self.deployment})"
        run = _through_outages(lambda: _read(client, self.running[node.id], title))
        if run.state is None or not run.state.is_crashed() or self.sent[node.id] > self.resend:
            return _is_done(run, title, self.seconds)
        if self.locks.setdefault(node.id, artefact_lock(node, self.place)).is_alive():
            return False
        if node.artefact(self.place).manifest() is not None and not self.parameters["force"]:
            return True
        get_run_logger().warning(
            "%s: crashed (%s); sent again, %d of %d times", title, run.state.message, self.sent[node.id], self.resend
        )
        self._send(node)
        return False


def _through_outages(request: Callable[[], T]) -> T:
    """The answer of the server, which may restart or be unreachable for some minutes."""
    until = time.monotonic() + _OUTAGE
    while True:
        try:
            return request()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            refused = isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500
            if refused or time.monotonic() > until:
                raise
            get_run_logger().warning("the Prefect server does not answer (%s); trying again", error)
            time.sleep(_SECONDS_BETWEEN_LOOKS)


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
