"""Tasks at the same time: on processes, Dask or Ray, as `runtime.task_runner` says; docs/machines.md."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from prefect.futures import PrefectFuture
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from dmp_core.config import PipelineConfig
from dmp_core.config.stages import RuntimeConfig
from dmp_core.errors import MissingExtra
from dmp_core.progress import current_listener, listening
from dmp_core.stages import CHUNKED, Node, StageOutput, chunks, clear, statuses, waves
from dmp_core.store import Workspace
from tasks import STAGE_TASKS


class Crew:
    """A task runner that is started with its first task, so that a run that finds everything done starts none."""

    def __init__(self, runtime: RuntimeConfig) -> None:
        self.runtime = runtime
        self.started = ExitStack()
        self.runner: TaskRunner[Any] | None = None

    def submit(self, stage: str, **parameters: Any) -> PrefectFuture[StageOutput]:
        if self.runner is None:
            self.runner = self.started.enter_context(task_runner(self.runtime))
        with listening(None):
            return self.runner.submit(STAGE_TASKS[stage], parameters)


def task_runner(runtime: RuntimeConfig) -> TaskRunner[Any]:
    """Prefect's runner for these settings, not yet started; raises MissingExtra if its package is not installed."""
    match runtime.task_runner:
        case "dask":
            return _dask(runtime)
        case "ray":
            init = {} if runtime.cluster else {"num_cpus": runtime.parallel, "include_dashboard": False}
            return _integration("ray").RayTaskRunner(address=runtime.cluster, init_kwargs=init)
        case _:
            return ProcessPoolTaskRunner(max_workers=runtime.parallel)


def _dask(runtime: RuntimeConfig) -> TaskRunner[Any]:
    runners = _integration("dask")
    import dask

    # A stage may start processes of its own (to render), which daemons may not.
    dask.config.set({"distributed.worker.daemon": False})
    local = {"n_workers": runtime.parallel, "threads_per_worker": 1, "dashboard_address": None}
    if runtime.cluster:
        return runners.DaskTaskRunner(address=runtime.cluster)
    return runners.DaskTaskRunner(cluster_kwargs=local)


def _integration(name: str) -> Any:
    try:
        return importlib.import_module(f"prefect_{name}.task_runners")
    except ImportError:
        raise MissingExtra(f"prefect-{name}", name) from None


_crew: ContextVar[Crew | None] = ContextVar("dmp_crew", default=None)


@contextmanager
def crew_for(runtime: RuntimeConfig) -> Iterator[Crew | None]:
    """The crew of the flow around this one, or a new one; None if tasks are to run one after the other, right here."""
    if runtime.task_runner == "thread" or _crew.get() is not None:
        yield _crew.get()
        return
    crew = Crew(runtime)
    token = _crew.set(crew)
    try:
        with _shared_server(runtime), crew.started:
            yield crew
    finally:
        _crew.reset(token)


@contextmanager
def _shared_server(runtime: RuntimeConfig) -> Iterator[None]:
    """Without a server, let local workers report to the one that the flow started, not start one each."""
    if get_current_settings().api.url is not None or runtime.cluster:
        yield
        return
    server = SubprocessASGIServer()
    server.start()
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


def run_nodes(
    config: PipelineConfig, nodes: list[Node], workspace: str, force: bool, shards: list[int] | None
) -> list[StageOutput]:
    """All nodes of one stage.

    Without a crew one after the other: each uses all cores itself, by worker processes or by torch's threads.
    """
    with crew_for(config.runtime) as crew:
        if crew is None:
            return [STAGE_TASKS[node.stage](config, node.id, workspace, force=force, shards=shards) for node in nodes]
        return [output for wave in waves(nodes) for output in _run_wave(crew, config, wave, workspace, force, shards)]


def _run_wave(
    crew: Crew, config: PipelineConfig, nodes: list[Node], workspace: str, force: bool, shards: list[int] | None
) -> Iterator[StageOutput]:
    """What is complete is only looked at; everything else is submitted, then waited for."""
    place, size = Workspace(workspace), config.runtime.chunk_shards
    found = statuses(nodes, place)
    futures: dict[str, list[PrefectFuture[StageOutput]]] = {}
    given = {"config": config, "workspace_url": workspace}
    divided = {node.id for node in nodes if size and node.stage in CHUNKED and shards is None}
    for node in nodes:
        if found[node.id] == "complete" and not force and shards is None:
            divided.discard(node.id)
        elif size and node.id in divided:
            clear(node, node.artefact(place), force)
            parts = chunks(node, place, size)
            futures[node.id] = [crew.submit(node.stage, node_id=node.id, shards=part, **given) for part in parts]
        else:
            futures[node.id] = [crew.submit(node.stage, node_id=node.id, force=force, shards=shards, **given)]
    for node in nodes:
        outputs = _results(node.id, futures.get(node.id, []))
        if node.id in futures and node.id not in divided:
            yield _told(outputs[0])
            continue
        with listening(None):
            last = STAGE_TASKS[node.stage](config, node.id, workspace, spent=sum(output.seconds for output in outputs))
        yield _told(replace(last, cached=last.cached and not outputs))


def _told(output: StageOutput) -> StageOutput:
    if listener := current_listener():
        listener.finished(output.id, output.seconds, output.cached)
    return output


def _results(name: str, futures: Sequence[PrefectFuture[StageOutput]]) -> list[StageOutput]:
    """The futures' outputs as they come; who listens hears how many of them are there."""
    listener, outputs = current_listener(), []
    if listener and futures:
        listener.started(name)
    for number, future in enumerate(futures, start=1):
        outputs.append(future.result())
        if listener:
            listener.advanced(name, number, len(futures), "")
    return outputs
