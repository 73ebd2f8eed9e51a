"""Run nodes of a plan with the registered runner, after the checks that precede any work."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from dmp_core.cli.console import ProgressDisplay, stderr, stdout
from dmp_core.config import PipelineConfig
from dmp_core.errors import InputError
from dmp_core.progress import current_listener, listening
from dmp_core.stages import (
    Node,
    StageOutput,
    announce,
    batches,
    check_overwrites,
    execute,
    find,
    in_turn,
    one_plan,
    shard_numbers,
    statuses,
)
from dmp_core.stages.estimate import estimate_each
from dmp_core.stages.preflight import check_needs, check_workspace
from dmp_core.store import Workspace, release_ended

_LAST = ".preset"
"""File in a workspace: which preset was run last."""


def run_nodes(
    settings: PipelineConfig, workspace: str, nodes: list[Node], force: bool = False, shards: str | None = None
) -> list[StageOutput]:
    """Run these nodes with the registered runner; needs no runner if all are complete."""
    place = Workspace(workspace)
    release_ended(place)
    check_overwrites(nodes, place)
    artefacts = {node.id: node.artefact(place) for node in nodes}
    found = statuses(nodes, place)
    notice_other_preset(settings, place, found)
    if not (force or shards) and set(found.values()) <= {"complete"}:
        for node in nodes:
            announce(node, artefacts[node.id])
        return [StageOutput(node.id, artefacts[node.id].address, node.fingerprint, True, 0, 0.0) for node in nodes]
    runner = _runner()
    # Stages on another pool load their weights there; in turn, all of them run here.
    away = {} if runner is _in_turn else settings.runtime.deployments
    here = [node for node in nodes if node.stage not in away]
    todo = [node for node in here if force or found[node.id] != "complete"]
    check_needs(todo, settings.runtime)
    check_workspace(todo, place)
    if _last_preset(place) != settings.preset:
        place.write_bytes(place.root, _LAST, settings.preset.encode())
    expected = _expected(nodes, found, place, settings)
    with ProgressDisplay(then=current_listener(), expected=expected) as display, listening(display):
        outputs: list[StageOutput] = runner(
            settings, workspace, force=force, only=[node.id for node in nodes], shards=shards
        )
    return outputs


def _expected(
    nodes: list[Node], found: Mapping[str, str], place: Workspace, settings: PipelineConfig
) -> dict[str, float]:
    """Estimated seconds per artefact, for the display on a terminal."""
    if not stdout.is_terminal:
        return dict.fromkeys((node.id for node in nodes), 0.0)
    estimates = estimate_each([node for node in nodes if found[node.id] != "complete"], place, settings.runtime)
    return {node.id: estimates[node.id].seconds if node.id in estimates else 0.0 for node in nodes}


def notice_other_preset(settings: PipelineConfig, place: Workspace, found: Mapping[str, str]) -> None:
    """Note on standard error if nothing here belongs to this configuration and the last run used another preset."""
    last = _last_preset(place)
    if last is not None and last != settings.preset and not {"complete", "partial"} & set(found.values()):
        text = f"note: {place.url} was last run with --preset {last}; nothing in it fits --preset {settings.preset}"
        stderr.print(text, style="dim", soft_wrap=True)


def _last_preset(place: Workspace) -> str | None:
    try:
        return place.fs.cat_file(f"{place.root}/{_LAST}").decode(errors="replace")
    except FileNotFoundError:
        return None


def _runner() -> Callable[..., Any]:
    """The runner of the DAG: Prefect's flow, found by entry point so that this package need not import it.

    If Prefect is not installed (it cannot be in vLLM's environment), stages run in turn.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # we report errors to the terminal, once
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    warnings.filterwarnings("ignore", "Failed to create the Prefect home")  # that is our error if it matters
    for entry in entry_points(group="dmp.runners"):
        try:
            runner: Callable[..., Any] = entry.load()
        except ModuleNotFoundError as error:
            if error.name != "prefect":
                raise
            return _in_turn
        return runner
    raise InputError("no runner is installed; install the package with: pip install 'dmp-pipeline[flows]'")


def _in_turn(
    settings: PipelineConfig, workspace: str, *, force: bool, only: list[str], shards: str | None
) -> list[StageOutput]:
    """The same nodes in the same order, without retries and without a record of the run."""
    stderr.print("Prefect is not installed (extra: flows): stages run in turn, without retries.", style="dim")
    numbers = {node_id: shard_numbers(shards, node_id.partition("/")[0]) for node_id in only}
    with one_plan(settings) as planned:
        return [
            execute(settings, node.id, workspace, force=force, shards=numbers[node.id])
            for _, batch in batches([find(planned, node_id) for node_id in only])
            for node in in_turn(batch, Workspace(workspace))
        ]
