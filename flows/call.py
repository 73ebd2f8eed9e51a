"""`call_stage`: one stage as a subflow in this process, or as deployments on another work pool."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.deployments import run_deployment
from prefect.exceptions import CancelledRun, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.states import Cancelling
from prefect.types._datetime import now

from dmp_core.config import PipelineConfig
from dmp_core.errors import InputError, RunError
from dmp_core.progress import current_listener
from dmp_core.stages import (
    Node,
    StageOutput,
    artefact_lock,
    making,
    missing_shards,
    ready_inputs,
    shard_text,
    statuses,
)
from dmp_core.stages.preflight import models_of
from dmp_core.store import Chunk, Lock, Manifest, Workspace
from flows.pools import lacks_models
from flows.stages import STAGE_FLOWS
from tasks.progress import ProgressArtifact

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 2.0
_OUTAGE = 600.0
"""Seconds for which the server may be away before the wait for other runs ends."""
_SHARE = "the worker must share the workspace, under the same path or URL"
MOST_CHUNKS = 100
"""Runs that one artefact is divided into; each costs a process's start, and the server a look every few seconds."""
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
    as the pool allows, or each chunk of its shards (`runtime.chunk_shards`); complete ones are not sent at all.

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
    _Elsewhere(config, stage, place, parameters).run(sent)
    if not shards:  # a selection of shards does not always complete an artefact
        _check_made(sent, place, deployment)
    outputs = [_output(node, place, node.id in cached) for node in nodes]
    if listener := current_listener():
        for output in outputs:
            listener.finished(output.id, output.seconds, output.cached)
    return outputs


def check_deployments(config: PipelineConfig, nodes: Sequence[Node]) -> None:
    """Raise InputError, before any work, if the server lacks a deployment of `runtime.deployments`, or it its models.

    nodes: those that are run.
    """
    if not config.runtime.deployments:
        return
    with get_client(sync_client=True) as client:
        for stage, name in config.runtime.deployments.items():
            try:
                deployment = client.read_deployment_by_name(name)
            except (ObjectNotFound, ValueError):
                raise InputError(
                    f"runtime.deployments.{stage}: no deployment {name!r} on {client.api_url}; `make deploy` makes "
                    "those of prefect.yaml, `prefect deployment ls` lists them"
                ) from None
            needed = list(models_of(node for node in nodes if node.stage == stage)[0])
            if needed and deployment.work_pool_name:
                _check_models(client.read_work_pool(deployment.work_pool_name), f"runtime.deployments.{stage}", needed)


def _check_models(pool: WorkPool, field: str, needed: list[str]) -> None:
    if pool.type == "kubernetes" and lacks_models(pool.base_job_template):
        raise InputError(
            f"{field}: pods of the pool {pool.name!r} have no volume with models, and {', '.join(needed)} must be "
            'pulled: `make deploy DEPLOY_FLAGS="--models-volume CLAIM"`; if its image contains them, set '
            "DMP_MODELS_DIR in the pool's env"
        )


def _check_made(nodes: Sequence[Node], place: Workspace, deployment: str) -> None:
    for node in nodes:
        artefact = node.artefact(place)
        if artefact.manifest() is None:
            raise StageFailed(
                f"{node.id} ({deployment}): ended as Completed, but {artefact.file('manifest.json')} is not there; "
                f"{_SHARE}"
            )


def _output(node: Node, place: Workspace, cached: bool) -> StageOutput:
    artefact = node.artefact(place)
    manifest = artefact.manifest()
    samples, seconds = (manifest.samples, manifest.seconds) if manifest else (0, 0.0)
    return StageOutput(node.id, artefact.address, node.fingerprint, cached, samples, seconds)


@dataclass(eq=False)
class _Part:
    """What one run of a deployment makes: an artefact, or a chunk of its shards."""

    node: Node
    before: Manifest | None
    chunk: Chunk | None = None
    run: UUID | None = None
    sent: int = 0
    """How many times, since it last finished a shard."""


class _Elsewhere:
    """Runs of a deployment, one per node or chunk of its shards; each starts as soon as its inputs are done."""

    def __init__(self, config: PipelineConfig, stage: str, place: Workspace, parameters: dict[str, Any]) -> None:
        self.config, self.place, self.parameters = config, place, parameters
        self.deployment, self.seconds = config.runtime.deployments[stage], config.runtime.timeouts.get(stage)
        self.running: list[_Part] = []
        self.chunks: Counter[str] = Counter()
        self.spent: dict[str, float] = defaultdict(float)
        self.locks: dict[str, Lock] = {}

    def run(self, nodes: Sequence[Node]) -> None:
        """Wait for all; if the wait ends early, the rest is cancelled."""
        waiting = {node.id: node for node in nodes}
        with get_client(sync_client=True) as client:
            try:
                while waiting or self.running:
                    undone = {*waiting, *(part.node.id for part in self.running)}
                    for node in list(waiting.values()):
                        if not undone & {source.id for source in node.inputs.values()}:
                            self._start(node)
                            del waiting[node.id]
                    for part in list(self.running):
                        if self._is_over(client, part):
                            self.running.remove(part)
                            self._publish_divided(part)
                    time.sleep(_SECONDS_BETWEEN_LOOKS if self.running else 0)
            except BaseException:
                for part in self.running:
                    _cancel(client, part.run, part.node.id)
                raise

    def _start(self, node: Node) -> None:
        """Send a node whole, or one run per chunk of its missing shards if it is to be divided."""
        before, runtime = node.artefact(self.place).manifest(), self.config.runtime
        parts = [_Part(node, before)]
        if runtime.chunk_shards and runtime.task_runner == "thread" and node.kind.chunked and not self._selected:
            missing = self._missing(node)
            size = max(runtime.chunk_shards, math.ceil(len(missing) / MOST_CHUNKS))
            if len(missing) > size:
                starts = range(0, len(missing), size)
                parts = [_Part(node, before, Chunk(missing[start : start + size])) for start in starts]
                self.chunks[node.id] = len(parts)
        for part in parts:
            self._send(part)
            self.running.append(part)

    @property
    def _selected(self) -> bool:
        return bool(self.parameters["shards"])

    def _missing(self, node: Node) -> list[int]:
        out = node.artefact(self.place)
        return missing_shards(node, making(node, ready_inputs(node, self.place), out, self.parameters["force"]))

    def _publish_divided(self, part: _Part) -> None:
        """After its last chunk a node is sent whole: that run finds all shards, and publishes them."""
        if part.chunk is None:
            return
        node, total = part.node, self.chunks[part.node.id]
        left = sum(other.node is node for other in self.running)
        ProgressArtifact(self.config.dataset, current_listener()).advanced(node.id, total - left, total, "chunks")
        if left:
            return
        if missing := self._missing(node):
            raise StageFailed(
                f"{self._title(node)}: its runs ended as Completed, but shards {shard_text(missing)} of "
                f"{node.artefact(self.place).address} are not there; {_SHARE}"
            )
        whole = _Part(node, part.before)
        self._send(whole)
        self.running.append(whole)

    def _title(self, node: Node) -> str:
        return f"{node.id} ({self.deployment})"

    def _send(self, part: _Part) -> None:
        parameters = {**self.parameters, "only": [part.node.id]}
        if part.chunk is not None:
            parameters |= {"shards": shard_text(part.chunk), "missing": True}
        elif part.node.id in self.chunks:
            parameters["spent"] = self.spent[part.node.id]
        given = {"parameters": parameters, "timeout": 0, "idempotency_key": str(uuid4())}
        # With the key, a request whose answer was lost makes no second run.
        part.run = _through_outages(lambda: run_deployment(self.deployment, **given)).id
        part.sent += 1

    def _is_over(self, client: SyncPrefectClient, part: _Part) -> bool:
        title = self._title(part.node)
        run = _through_outages(lambda: _read(client, part.run, title))
        crashed = run.state is not None and run.state.is_crashed()
        over = self._is_made(part, run) if crashed else _is_done(run, title, self.seconds)
        if over and part.chunk is not None:
            self.spent[part.node.id] += run.total_run_time.total_seconds()
        return over

    def _is_made(self, part: _Part, run: FlowRun) -> bool:
        """Whether a run that crashed had done its work. If not, it is sent again, unless its lock shows it alive."""
        node = part.node
        if self.locks.setdefault(node.id, artefact_lock(node, self.place)).is_alive():
            return False
        if part.chunk is None:
            made = node.artefact(self.place).manifest()
            if made is not None and made != part.before:
                return True
        else:
            left = Chunk(sorted({*part.chunk}.intersection(self._missing(node))))
            part.sent, part.chunk = part.sent if len(left) == len(part.chunk) else 0, left
            if not left:
                return True
        again = self.config.runtime.resend
        if part.sent > again:
            return _is_done(run, self._title(node), self.seconds)
        message = run.state.message if run.state else None
        get_run_logger().warning(
            "%s: crashed (%s); sent again, %d of %d times", self._title(node), message, part.sent, again
        )
        self._send(part)
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
