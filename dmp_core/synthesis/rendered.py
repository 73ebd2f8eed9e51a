"""Rendered images: a pool of worker processes, each drawing one prompt at a time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType

from dmp_core.config.stages import RenderImages, RuntimeConfig
from dmp_core.labelers.exact import pack_truth
from dmp_core.processes import without_interrupts, worker_pool
from dmp_core.store import Sample
from dmp_core.synthesis.render import configure_threads, render_prompt
from dmp_core.synthesis.sources import Row, image_sample


class RenderedImages:
    """Images with their exact truth (`truth.npz`) from Mitsuba 3."""

    def __init__(self, settings: RenderImages, runtime: RuntimeConfig) -> None:
        self.settings = settings
        self.workers = runtime.workers
        self.started = ExitStack()
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> RenderedImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error, the images under way are given up: whoever cancelled or timed out wants an answer."""
        self.started.__exit__(kind, error, trace)

    def samples(self, rows: list[Row]) -> Iterable[Sample]:
        """See `ImageSource`."""
        if self.pool is None:
            self.pool = self.started.enter_context(worker_pool(self.workers, partial(configure_threads, 1)))
        with without_interrupts():
            return self.pool.map(_render, rows, [self.settings] * len(rows))


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
    return sample | {"truth.npz": pack_truth(rendered)}
