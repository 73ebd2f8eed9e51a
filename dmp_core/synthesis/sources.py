"""Protocol of image sources, and their lookup by the `kind` in the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Protocol

from dmp_core.memory import Batches
from dmp_core.modalities.files import png_bytes
from dmp_core.runtime import RuntimeConfig
from dmp_core.store import Sample, Skipped, canonical_json
from dmp_core.synthesis.settings import ClipBound, DiffusionImages, FolderImages, RenderImages

Row = dict[str, Any]
"""One row of the prompts table: key, keyword, prompt, seed, …"""

SOURCES = {
    "render": "dmp_core.synthesis.rendered:RenderedImages",
    "diffusion": "dmp_core.synthesis.diffusion:DiffusedImages",
    "folder": "dmp_core.synthesis.folder:FolderSource",
}
"""kind → "module:class"; imported on first use, so that planning a run loads neither renderer nor networks."""


_PATIENT = "dmp_core.synthesis.patience:patient_images"


class ImageSource(AbstractContextManager["ImageSource"], Protocol):
    """Makes one image per row; a context manager, since it may have worker processes or a network.

    Its constructor takes its settings and the runtime. Heavy parts start with the first sample, so that a run whose
    shards are all finished starts nothing.
    """

    @property
    def batches(self) -> Batches | None:
        """In which a network makes the images; None where each is made alone."""
        ...

    def samples(self, rows: list[Row]) -> Iterable[Sample | Skipped]:
        """One sample per row, in order (see `image_sample`), a function of row and settings alone.

        With `runtime.on_bad_sample.policy: skip`, a sample that fails is made again from its `next_seed`, if seeds
        matter; if it fails again, `Skipped` takes its place.
        """
        ...


def open_source(
    settings: RenderImages | DiffusionImages | FolderImages, runtime: RuntimeConfig, clip: ClipBound | None = None
) -> ImageSource:
    """The source for `settings.kind`. clip: decides about `patience`; None: the renderer's truth does."""
    source: ImageSource = _loaded(SOURCES[settings.kind])(settings, runtime)
    if isinstance(settings, FolderImages) or not settings.patience:
        return source
    patient: ImageSource = _loaded(_PATIENT)(source, settings.patience, clip, runtime)
    return patient


def _loaded(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def image_sample(row: Row, rgb: Any, generator: dict[str, Any], **details: Any) -> Sample:
    """An image with its provenance, as members of a shard.

    rgb: uint8 (H, W, 3). generator: its settings. details: further entries of the sample's json.
    """
    record = {name: row[name] for name in ("key", "prompt", "keyword")}
    record |= {"seed": int(row["seed"]), "generator": generator} | details
    return {"__key__": row["key"], "png": png_bytes(rgb), "json": canonical_json(record).encode()}
