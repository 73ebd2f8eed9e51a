"""Rendered images: a pool of worker processes, each drawing one prompt at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from types import TracebackType

from dmp_core.config.stages import RenderImages, RuntimeConfig
from dmp_core.labelers.exact import pack_truth
from dmp_core.store import Sample
from dmp_core.synthesis.render import configure_threads, render_prompt
from dmp_core.synthesis.sources import Row, image_sample


class RenderedImages:
    """Images with their exact truth (`truth.npz`) from Mitsuba 3."""

    def __init__(self, settings: RenderImages, runtime: RuntimeConfig) -> None:
        self.settings = settings
        self.workers = runtime.workers
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> RenderedImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error, do not wait for the images under way: whoever cancelled or timed out wants an answer."""
        if self.pool is not None:
            self.pool.shutdown(wait=error is None, cancel_futures=True)

    def samples(self, rows: list[Row]) -> Iterable[Sample]:
        """See `ImageSource`."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"), initializer=_start_worker)
        return self.pool.map(_render, rows, [self.settings] * len(rows))


def _start_worker() -> None:
    configure_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot say goodbye, and its workers would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


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
