"""Parallel tasks on processes, Dask or Ray, according to `runtime.task_runner`; see docs/machines.md."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from dmp_core.config import PipelineConfig
from dmp_core.errors import InputError, MissingExtra
from dmp_core.processes import end_with_parent, end_workers, environment_variable, without_interrupts
from dmp_core.progress import current_listener, listening
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages import (
    Node,
    StageOutput,
    chunks,
    in_turn,
    making,
    on_gpu,
    planned_gpus,
    ready_inputs,
    statuses,
    waves,
)
from dmp_core.stages.gpus import VISIBLE
from dmp_core.store import Workspace, release_ended
from flows.server import temporary_server
from tasks import STAGE_TASKS
from tasks.progress import ProgressArtifact


@dataclass
class Job:
    """A submitted task, with the parameters to submit it again."""

    node: Node
    parameters: dict[str, Any]
    future: PrefectFuture[StageOutput]
    again: bool = False


class RenewingRunner:
    """A task runner that starts with its first task, so that a run with nothing to do starts none."""

    def __init__(self, runtime: RuntimeConfig) -> None:
        self.runtime = runtime
        self.started = ExitStack()
        self.runner: TaskRunner[Any] | None = None
        self.unread: list[Job] = []

    def submit(self, node: Node, **parameters: Any) -> Job:
        parameters["node_id"] = node.id
        job = Job(node, parameters, self._send(node, parameters))
        self.unread.append(job)
        return job

    def _send(self, node: Node, parameters: dict[str, Any]) -> PrefectFuture[StageOutput]:
        if self.runner is None:
            self.runner = self.started.enter_context(started(self.runtime))
        with listening(None), without_interrupts(), _gpu_for(node, self.runtime, parameters) as given:
            return self.runner.submit(STAGE_TASKS[node.stage], given)

    def result(self, job: Job) -> StageOutput:
        """Wait for the job's output; raises its task's error.

        A killed worker process breaks its whole pool, which no task can fix by trying again. So the pool is replaced,
        and the lost tasks are submitted again, once.
        """
        if _lost(job, BrokenExecutor):
            if job.again:
                raise BrokenExecutor(
                    f"{job.node.id}: its worker process was killed, twice; if for lack of memory, lower "
                    "runtime.parallel or runtime.workers"
                )
            self._renew()
        output = job.future.result()
        self.unread.remove(job)
        return output

    def _renew(self) -> None:
        self.started.close()  # afterwards every task of the broken pool has ended
        self.runner = None
        lost = [job for job in self.unread if _lost(job, Exception)]
        get_run_logger().warning("a worker process was killed; %d tasks are sent again, to new processes", len(lost))
        for job in lost:
            job.future, job.again = self._send(job.node, job.parameters), True

    def kill(self) -> None:
        """End this machine's worker processes immediately: leaving a pool would wait for their work."""
        if isinstance(self.runner, EndableProcesses):
            self.runner.kill()


def _lost(job: Job, error: type[Exception]) -> bool:
    """Whether the runner raised this error, not the task: waiting for a task does not raise the task's error."""
    try:
        job.future.wait()
    except error:
        return True
    return False


class EndableProcesses(ProcessPoolTaskRunner):
    """Prefect's process pool, but its processes can be ended, and end when the flow's process is killed."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers, initializer=end_with_parent)

    def __enter__(self) -> EndableProcesses:
        self._api_url = PREFECT_API_URL.value()
        super().__enter__()
        # Workers send events and logs via this queue. One that is killed while it writes leaves the queue locked, and
        # this process would wait for the lock at exit.
        if self._subprocess_message_queue is not None:
            self._subprocess_message_queue.cancel_join_thread()
        return self

    def _forward_subprocess_messages(self) -> None:
        # This thread has none of the flow's settings: for what workers report it would start a server of Prefect's own,
        # which takes half a minute and survives `kill -9`.
        with temporary_settings({PREFECT_API_URL: self._api_url}):
            super()._forward_subprocess_messages()

    def kill(self) -> None:
        end_workers(self._executor)


def task_runner(runtime: RuntimeConfig) -> TaskRunner[Any]:
    """Prefect's runner for these settings, not yet started; raises MissingExtra if its package is not installed."""
    match runtime.task_runner:
        case "dask":
            return _dask(runtime)
        case "ray":
            init = {} if runtime.cluster else {"num_cpus": runtime.parallel, "include_dashboard": False}
            if not runtime.cluster and (gpus := planned_gpus(runtime)):
                init["num_gpus"] = len(gpus)
            return _integration("ray").RayTaskRunner(address=runtime.cluster, init_kwargs=init)
        case _:
            return EndableProcesses(runtime.parallel)


def _dask(runtime: RuntimeConfig) -> TaskRunner[Any]:
    runners = _integration("dask")
    import dask

    # A stage may start its own processes (to render), which daemons may not.
    dask.config.set({"distributed.worker.daemon": False})
    local = {"n_workers": runtime.parallel, "threads_per_worker": 1, "dashboard_address": None}
    if runtime.cluster:
        return runners.DaskTaskRunner(address=runtime.cluster)
    return runners.DaskTaskRunner(cluster_kwargs=local)


@contextmanager
def started(runtime: RuntimeConfig) -> Iterator[TaskRunner[Any]]:
    """The runner for these settings. A Ray that is started here sees the planned GPUs only."""
    gpus = planned_gpus(runtime) if runtime.task_runner == "ray" and not runtime.cluster else ()
    with ExitStack() as running:
        with environment_variable(VISIBLE, ",".join(gpus)) if gpus else nullcontext():
            runner = running.enter_context(task_runner(runtime))
        yield runner


@contextmanager
def _gpu_for(node: Node, runtime: RuntimeConfig, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Parameters with which a task has a GPU for itself, if its node computes on one.

    Worker processes claim one. Ray assigns them, and hides them from tasks that request none.
    """
    if not node.config.on_device:
        yield parameters
    elif runtime.task_runner != "ray":
        yield {**parameters, "claims_gpu": True}
    elif not _ray_has_gpus(runtime):
        yield parameters
    else:
        with _integration("ray", "context").remote_options(num_gpus=1):
            yield {**parameters, "config": on_gpu(parameters["config"])}


def _ray_has_gpus(runtime: RuntimeConfig) -> bool:
    if runtime.device in ("cpu", "mps"):
        return False
    has = _integration("ray").ray.cluster_resources().get("GPU", 0) >= 1
    if not has and (runtime.gpus != "auto" or runtime.device == "cuda"):
        raise InputError(
            "runtime.gpus: GPUs are planned, and Ray has none to assign; start its machines with --num-gpus, or set "
            "runtime.device=cpu"
        )
    return has


def _integration(name: str, module: str = "task_runners") -> Any:
    try:
        return importlib.import_module(f"prefect_{name}.{module}")
    except ImportError:
        raise MissingExtra(f"prefect-{name}", name) from None


_current: ContextVar[RenewingRunner | None] = ContextVar("dmp_runner", default=None)


@contextmanager
def runner_for(runtime: RuntimeConfig) -> Iterator[RenewingRunner | None]:
    """The runner of the flow around this one, or a new one; None if tasks run one after another in this process.

    If the block ends early (an error, a timeout, SIGTERM), the runner's processes are ended; finished shards stay.
    """
    if runtime.task_runner == "thread" or _current.get() is not None:
        yield _current.get()
        return
    runner = RenewingRunner(runtime)
    token = _current.set(runner)
    try:
        with _shared_server(runtime), runner.started:
            try:
                yield runner
            except BaseException:
                runner.kill()
                raise
    finally:
        _current.reset(token)


@contextmanager
def _shared_server(runtime: RuntimeConfig) -> Iterator[None]:
    """Without a server, let local workers report to the one that the flow started, instead of starting one each."""
    if get_current_settings().api.url is not None or runtime.cluster:
        yield
        return
    with temporary_settings({PREFECT_API_URL: temporary_server()}):
        yield


def run_nodes(
    config: PipelineConfig,
    nodes: list[Node],
    workspace: str,
    force: bool,
    shards: Sequence[int] | None,
    spent: float = 0.0,
) -> list[StageOutput]:
    """Run all nodes of one stage.

    Without a runner one after another: each uses all cores itself, via worker processes or torch's threads.
    """
    release_ended(Workspace(workspace))
    with runner_for(config.runtime) as runner:
        if runner is None:
            given = {"force": force, "shards": shards, "spent": spent}
            return [
                STAGE_TASKS[node.stage](config, node.id, workspace, **given)
                for node in in_turn(nodes, Workspace(workspace))
            ]
        return [output for wave in waves(nodes) for output in _run_wave(runner, config, wave, workspace, force, shards)]


def _run_wave(
    runner: RenewingRunner,
    config: PipelineConfig,
    nodes: list[Node],
    workspace: str,
    force: bool,
    shards: Sequence[int] | None,
) -> Iterator[StageOutput]:
    """Submit all nodes that are not complete, then wait for them."""
    place, size = Workspace(workspace), config.runtime.chunk_shards
    found = statuses(nodes, place)
    jobs: dict[str, list[Job]] = {}
    given = {"config": config, "workspace_url": workspace}
    divided = {node.id for node in nodes if size and node.kind.chunked and shards is None}
    for node in nodes:
        if found[node.id] == "complete" and not force and shards is None:
            divided.discard(node.id)
        elif size and node.id in divided:
            parts = chunks(node, making(node, ready_inputs(node, place), node.artefact(place), force), size)
            jobs[node.id] = [runner.submit(node, force=force, shards=part, **given) for part in parts]
        else:
            jobs[node.id] = [runner.submit(node, force=force, shards=shards, **given)]
    for node in nodes:
        if node.id in jobs and node.id not in divided:
            (output,) = _results(runner, node.id, jobs[node.id])
            yield _report_finished(output)
            continue
        # A task that makes a whole artefact shows its own progress; with chunks, only this flow knows the total.
        with listening(ProgressArtifact(config.dataset, current_listener())):
            outputs = _results(runner, node.id, jobs.get(node.id, []))
        with listening(None):
            spent = sum(output.seconds for output in outputs)
            remake = force and node.id in divided
            last = STAGE_TASKS[node.stage](config, node.id, workspace, force=remake, spent=spent)
        yield _report_finished(replace(last, cached=last.cached and not outputs))


def _report_finished(output: StageOutput) -> StageOutput:
    if listener := current_listener():
        listener.finished(output.id, output.seconds, output.cached)
    return output


def _results(runner: RenewingRunner, name: str, jobs: Sequence[Job]) -> list[StageOutput]:
    """The jobs' outputs, in order; the listener receives their number."""
    listener, outputs = current_listener(), []
    if listener and jobs:
        listener.started(name)
    for number, job in enumerate(jobs, start=1):
        outputs.append(runner.result(job))
        if listener:
            listener.advanced(name, number, len(jobs), "chunks" if len(jobs) > 1 else "")
    return outputs
