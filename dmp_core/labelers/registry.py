"""The labelers, by name.

A labeler is a callable: images (B, 3, H, W) float in [0, 1] -> {modality: Tensor}, in the units of
`encoding`, channels first (normal (B, 3, H, W), depth (B, H, W) …). Modalities with the same settings are labelled in
one pass. If memory runs out, batches become smaller, unless its attribute `batch_independent` is False. It is built by
a factory

    build(weights: str | Path | None, device: str, **options) -> Labeler

Third parties register theirs as an entry point of the group `dmp.labelers`:

    [project.entry-points."dmp.labelers"]
    mine = "my_package.labeler:build"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dmp_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

ENTRY_POINTS = "dmp.labelers"

# name -> "module:factory"; a string, so that naming a labeler imports no network.
BUILT_IN = {name: f"dmp_core.labelers.{name}:build" for name in ("eva02", "omnidata", "pienet", "zoedepth")}


class Labeler(Protocol):
    """A predictor that makes pseudo-labels."""

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in [0, 1] to one tensor per modality."""
        ...


def labeler_names() -> list[str]:
    """Names that `build_labeler` can build."""
    return sorted({*BUILT_IN, *(point.name for point in metadata.entry_points(group=ENTRY_POINTS))})


def build_labeler(name: str, weights: str | Path | None = None, device: str = "cpu", **options: Any) -> Labeler:
    """Build a labeler by name.

    weights: a local path or a model id; the labeler decides which it accepts.
    Raises InputError when the name is unknown or does not work on images.
    """
    if name == "exact":
        raise InputError("labeler 'exact': reads the renderer's truth, not images; use images.kind: render")
    return _find(name)(weights=weights, device=device, **options)


def labeler_options(name: str) -> set[str] | None:
    """Names of a labeler's options (without weights and device); None if it accepts any."""
    parameters = signature(_find(name)).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters} - {"weights", "device"}


def _find(name: str) -> Callable[..., Labeler]:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: Callable[..., Labeler] = getattr(import_module(module), attribute)
        return built_in
    for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
        loaded: Callable[..., Labeler] = point.load()
        return loaded
    known = ", ".join(["exact", *labeler_names()])
    raise InputError(f"labeler {name!r} is unknown; there are: {known} (add one as an entry point of {ENTRY_POINTS})")
