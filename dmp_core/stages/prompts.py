"""keywords → prompts.parquet"""

from __future__ import annotations

import io
from collections.abc import Iterable

import pandas as pd

from dmp_core.config.stages import RuntimeConfig, SplitConfig
from dmp_core.progress import Progress, silent
from dmp_core.prompts import make_prompts
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.plan import PromptsStage
from dmp_core.store import Artefact

FILE = "prompts.parquet"


def run(
    config: PromptsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Write the captions of one split; those of the splits given as inputs are not used again."""
    exclude = {prompt for artefact in inputs.values() for prompt in read_prompts(artefact)["prompt"]}
    split = SplitConfig(keywords=config.keywords, count=config.count)
    table = make_prompts(
        config.split, split, config.prompts, config.seed, exclude, device=runtime.device, progress=progress
    )
    out.write_bytes(FILE, table.to_parquet(index=False))
    return StageResult(samples=len(table))


def read_prompts(artefact: Artefact) -> pd.DataFrame:
    """Columns key, split, keyword, prompt, seed … of a finished prompts artefact."""
    return pd.read_parquet(io.BytesIO(artefact.read_bytes(FILE)))
