"""A stage's task that records its GPU: so runners can share out GPUs that are not there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from dmp_core.config import PipelineConfig
from dmp_core.prompts.settings import GrammarPrompts
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages import StageOutput, prompts
from tasks import run_stage

FOLDER = "DMP_TEST_GPUS"
PATIENCE = 120.0
_run = prompts.run


def record(gpus: int) -> None:
    """Fails if another process has the same GPU now. Waits until every GPU was in use once."""
    folder, gpu = Path(os.environ[FOLDER]), os.environ["CUDA_VISIBLE_DEVICES"]
    (folder / f"{gpu}.busy").touch(exist_ok=False)
    (folder / f"{gpu}.used").touch()
    until = time.monotonic() + PATIENCE
    while len(list(folder.glob("*.used"))) < gpus and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.1)
    (folder / f"{gpu}.busy").unlink()


def by_grammar(config: Any, *inputs: Any, **given: Any) -> Any:
    """The stage `prompts`, with a grammar in place of its language model."""
    settings = config.prompts.model_copy(update={"generator": GrammarPrompts()})
    return _run(config.model_copy(update={"prompts": settings}), *inputs, **given)


def _recorded(config: Any, *inputs: Any, runtime: RuntimeConfig, **given: Any) -> Any:
    assert runtime.device == "cuda"
    record(len(runtime.gpus))
    return by_grammar(config, *inputs, runtime=runtime, **given)


def record_stage(
    config: PipelineConfig, node_id: str, workspace_url: str, force: bool, shards: Any, claims_gpu: bool = False
) -> StageOutput:
    """`run_stage`, for a task: its workers import this module."""
    prompts.run = _recorded
    return run_stage(config, node_id, workspace_url, force=force, shards=shards, claims_gpu=claims_gpu)
