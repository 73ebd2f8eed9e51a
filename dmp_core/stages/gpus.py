"""A GPU for each parallel task: chosen in its worker process before torch sees any, and never two tasks on one.

A claim is a locked file per GPU, in a folder of the user on this machine. So it also holds between several runs, and
ends with its process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.errors import InputError
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.base import Node

VISIBLE = "CUDA_VISIBLE_DEVICES"
_BETWEEN_LOOKS = 0.5

logger = logging.getLogger(__name__)


@cache  # a claim changes the variable
def visible_gpus() -> tuple[str, ...]:
    """The GPUs of this machine that CUDA may use, as names for `CUDA_VISIBLE_DEVICES`; found without torch."""
    if (named := os.environ.get(VISIBLE)) is not None:
        # As CUDA reads it: up to the first invalid name.
        names = (name.strip() for name in named.split(","))
        return tuple(takewhile(lambda name: re.fullmatch(r"\d+|(GPU|MIG)-.+", name), names))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    return tuple(str(number) for number in range(len(re.findall(r"^GPU \d+:", listed, re.MULTILINE))))


def planned_gpus(runtime: RuntimeConfig) -> tuple[str, ...]:
    """The GPUs that parallel tasks on this machine share out; none if there is nothing to choose.

    Raises InputError if a GPU of `runtime.gpus` is not there.
    """
    if runtime.task_runner == "thread" or runtime.device in ("cpu", "mps"):
        return ()
    seen = visible_gpus()
    if runtime.gpus == "auto":
        return seen if len(seen) > 1 or runtime.task_runner == "ray" else ()
    if missing := [number for number in runtime.gpus if number >= len(seen)]:
        raise InputError(
            f"runtime.gpus: no GPU {', '.join(map(str, missing))}: this machine shows {len(seen)} "
            "(nvidia-smi -L, CUDA_VISIBLE_DEVICES), counted from 0"
        )
    return tuple(seen[number] for number in dict.fromkeys(runtime.gpus))


def check_gpus(nodes: Iterable[Node], runtime: RuntimeConfig) -> None:
    """Raise InputError, before any work, if a planned GPU is not there, or a task needs more than its own."""
    if runtime.cluster is not None or not planned_gpus(runtime):
        return
    for node in nodes:
        fitted = getattr(node.config, "train", None)
        processes = fitted.processes_of_fit if node.stage == "train" and fitted is not None else 1
        if processes not in (1, "auto"):
            raise InputError(
                f"train.processes: {processes}, but with task_runner {runtime.task_runner} each task has one GPU "
                "(runtime.gpus); set it to auto, or task_runner to thread"
            )


@contextmanager
def own_gpu(config: PipelineConfig) -> Iterator[PipelineConfig]:
    """In a worker process, the settings for one task, which has one of the planned GPUs for itself.

    Waits while other tasks have all of them. Unchanged settings if there is nothing to choose.
    """
    gpus = planned_gpus(config.runtime)
    if not gpus:
        yield config
        return
    if os.environ.get(VISIBLE) in gpus:  # of an earlier task: torch may know no other by now
        gpus = (os.environ[VISIBLE],)
    with _claimed(gpus) as gpu:
        os.environ[VISIBLE] = gpu
        yield on_gpu(config)


def on_gpu(config: PipelineConfig) -> PipelineConfig:
    """A planned GPU that torch does not see is then an error; `auto` would compute on the processor."""
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": "cuda"})})


@contextmanager
def _claimed(gpus: Sequence[str]) -> Iterator[str]:
    folder = Path(tempfile.gettempdir()) / f"dmp-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waits = False
    while True:
        for gpu in gpus:
            with (folder / f"{gpu.replace('/', '-')}.lock").open("a") as file:
                if _lock(file.fileno()):
                    yield gpu
                    return
        if not waits:
            logger.info("waiting for a GPU: other tasks on this machine use %s", ", ".join(gpus))
        waits = True
        time.sleep(_BETWEEN_LOOKS)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
