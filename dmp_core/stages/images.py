"""prompts → image shards: `{key}.png`, `{key}.json` and, from the renderer, `{key}.truth.npz`"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.node import ImagesStage
from dmp_core.stages.prompts import cut_prompts, read_prompts
from dmp_core.store import Artefact, plan_shards, write_shards
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.synthesis.sources import Row, open_source

# What the dataset's card tells of the prompts: its name there, and the prompts' column.
_TOLD = {"keywords": "keyword", "prompts": "generator"}


def run(
    config: ImagesStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Make one image a prompt, a shard at a time."""
    rows: dict[str, Row] = {row["key"]: row for row in _records(inputs["prompts"])}
    plans = plan_shards(rows, config.samples_per_shard, inputs["prompts"].published().skipped)
    with open_source(config.images, runtime) as source:
        files = write_shards(
            out,
            plans,
            lambda plan: source.samples([rows[key] for key in plan.keys]),
            only=shards,
            threaded=isinstance(config.images, DiffusionImages),
            bounds=runtime.on_bad_sample.bounds,
            progress=progress,
        )
    details = {name: sorted({str(row[column]) for row in rows.values()}) for name, column in _TOLD.items()}
    cut = (
        cut_prompts(config.images, (row["prompt"] for row in rows.values()))
        if isinstance(config.images, DiffusionImages)
        else {}
    )
    return StageResult(samples=sum(plan.planned for plan in plans), files=files, details=details | cut)


def _records(prompts: Artefact) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in read_prompts(prompts).to_dict("records")]
