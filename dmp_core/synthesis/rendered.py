"""Rendered images: a pool of worker processes, each drawing one prompt at a time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType

from dmp_core.dataset.truth import pack_truth
from dmp_core.processes import without_interrupts, worker_pool
from dmp_core.render import PROVIDES, configure_threads, render_prompt
from dmp_core.runtime import RuntimeConfig
from dmp_core.store import Sample, Skipped
from dmp_core.store.attempts import SAMPLE_ERRORS, first_that_works, next_seed
from dmp_core.synthesis.settings import RenderImages
from dmp_core.synthesis.sources import Row, image_sample


class RenderedImages:
    """Images with their exact truth (`truth.npz`) from Mitsuba 3."""

    batches = None

    def __init__(self, settings: RenderImages, runtime: RuntimeConfig) -> None:
        self.settings = settings
        self.workers = runtime.workers
        self.skips = runtime.on_bad_sample.skips
        self.started = ExitStack()
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> RenderedImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error, unfinished images are abandoned, so that a cancelled or timed-out run ends quickly."""
        self.started.__exit__(kind, error, trace)

    def samples(self, rows: list[Row]) -> Iterable[Sample | Skipped]:
        """See `ImageSource`."""
        if self.pool is None:
            self.pool = self.started.enter_context(worker_pool(self.workers, partial(configure_threads, 1)))
        with without_interrupts():
            render = _render_or_skip if self.skips else _render
            return self.pool.map(render, rows, [self.settings] * len(rows))


def _render_or_skip(row: Row, settings: RenderImages) -> Sample | Skipped:
    """Render or skip; the renderer reports errors as RuntimeError."""
    seeds = int(row["seed"]), next_seed(int(row["seed"]))
    tries = [partial(_render, row | {"seed": seed}, settings) for seed in seeds]
    return first_that_works(row["key"], tries, (*SAMPLE_ERRORS, RuntimeError))


def _render(row: Row, settings: RenderImages) -> Sample:
    rendered = render_prompt(
        row["prompt"],
        row["keyword"],
        int(row["seed"]),
        resolution=settings.resolution,
        samples_per_pixel=settings.samples_per_pixel,
        max_depth=settings.max_depth,
    )
    sample = image_sample(row, rendered.rgb, settings.model_dump(mode="json"), scene=rendered.info)
    return sample | {"truth.npz": pack_truth(rendered, PROVIDES)}
