"""prompts → image shards: `{key}.png`, `{key}.json` and, from the renderer, `{key}.truth.npz`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from dmp_core.config.stages import RenderImages, RuntimeConfig
from dmp_core.errors import InputError
from dmp_core.progress import Progress, silent
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.plan import ImagesStage
from dmp_core.stages.prompts import read_prompts
from dmp_core.store import Artefact, Sample, ShardPlan, canonical_json, plan_shards, write_shards

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
    if not isinstance(config.images, RenderImages):
        raise InputError(f"images.kind: {config.images.kind!r} is not built in this version; use `render`")
    rows: dict[str, dict[str, Any]] = {row["key"]: row for row in _records(inputs["prompts"])}
    plans = plan_shards(rows, config.samples_per_shard)
    with _Renderers(config.images, runtime.workers) as renderers:

        def produce(plan: ShardPlan) -> Iterator[Sample]:
            return renderers.samples([rows[key] for key in plan.keys])

        files = write_shards(out, plans, produce, only=shards, progress=progress)
    details = {name: sorted({str(row[column]) for row in rows.values()}) for name, column in _TOLD.items()}
    return StageResult(samples=len(rows), files=files, details=details)


def _records(prompts: Artefact) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in read_prompts(prompts).to_dict("records")]


class _Renderers:
    """Worker processes that render; started with the first sample, so that a cached run starts none."""

    def __init__(self, settings: RenderImages, workers: int) -> None:
        self.settings = settings
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Renderers:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def samples(self, rows: list[dict[str, Any]]) -> Iterator[Sample]:
        if self.pool is None:
            context = get_context("spawn")
            self.pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
        return self.pool.map(render_sample, rows, [self.settings] * len(rows))


def _start_worker() -> None:
    from dmp_core.synthesis.render import configure_threads

    configure_threads(1)


def render_sample(row: dict[str, Any], settings: RenderImages) -> Sample:
    """One row of the prompts table as an image with its truth and provenance."""
    from dmp_core.labelers.encoding import png_bytes
    from dmp_core.labelers.exact import pack_truth
    from dmp_core.synthesis.render import render_prompt

    rendered = render_prompt(
        row["prompt"],
        row["keyword"],
        int(row["seed"]),
        resolution=settings.resolution,
        samples_per_pixel=settings.samples_per_pixel,
        max_depth=settings.max_depth,
    )
    record = {
        "key": row["key"],
        "prompt": row["prompt"],
        "keyword": row["keyword"],
        "seed": int(row["seed"]),
        "generator": settings.model_dump(mode="json"),
        "scene": rendered.info,
    }
    return {
        "__key__": row["key"],
        "png": png_bytes(rendered.rgb),
        "json": canonical_json(record).encode(),
        "truth.npz": pack_truth(rendered),
    }
