"""Cost of the orchestration: the DAG with Prefect compared with the same stages in a plain loop.

    python -m benchmarks.orchestration --repeats 3

Prints seconds of both, their ratio, and the time of a rerun with nothing to do.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dmp_core.config import load_config
from dmp_core.stages import execute, plan

STAGES = ("prompts", "images", "labels", "shards")


def in_a_loop(workspace: Path, overrides: list[str]) -> None:
    """Dataset stages, called one after another."""
    config = load_config("smoke", None, overrides)
    for node in plan(config):
        if node.stage in STAGES:
            execute(config, node.id, str(workspace))


def through_prefect(workspace: Path, overrides: list[str]) -> None:
    """The same nodes as a flow."""
    from flows.pipeline import run_pipeline

    config = load_config("smoke", None, overrides)
    run_pipeline(config, str(workspace), only=[node.id for node in plan(config) if node.stage in STAGES])


def timed(work: Callable[[Path, list[str]], None], overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        work(Path(folder), overrides)
        return time.perf_counter() - started


def cached_rerun(overrides: list[str]) -> float:
    """Seconds of a `dmp run` with nothing to do, including the process's start."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dmp_core.cli", "run", "-p", "smoke", "-w", folder]
        command += [part for override in overrides for part in ("--set", override)]
        subprocess.run(command, check=True, capture_output=True)
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def main(
    repeats: Annotated[int, typer.Option(help="Pairs of runs.")] = 3,
    count: Annotated[int, typer.Option(help="Training images; the test splits have two each.")] = 32,
) -> None:
    overrides = [f"splits.train.count={count}", "shards.samples_per_shard=16"]
    timed(through_prefect, overrides)  # the first flow of a process pays for the server's start
    pairs = [(timed(through_prefect, overrides), timed(in_a_loop, overrides)) for _ in range(repeats)]
    table = Table("measure", "median", title=f"{count + 6} samples, {repeats} pairs", title_justify="left")
    table.add_row("through Prefect, s", f"{statistics.median(a for a, _ in pairs):.2f}")
    table.add_row("plain loop, s", f"{statistics.median(b for _, b in pairs):.2f}")
    table.add_row("ratio", f"{statistics.median(a / b for a, b in pairs):.3f}")
    table.add_row("cached rerun of the whole DAG, s", f"{cached_rerun([]):.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
