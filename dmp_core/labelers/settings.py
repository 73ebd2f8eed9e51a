"""Settings of labelers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    field_validator,
)

from dmp_core.labelers.registry import labeler_names
from dmp_core.modalities.base import Axes
from dmp_core.names import Precision
from dmp_core.settings import Settings, since


class ExactLabels(Settings):
    """The image's ground truth: from the renderer, or from files next to your own images."""

    kind: Literal["exact"] = "exact"
    axes: Axes = since("opengl")
    """Axes of vectors in files next to your own images; the dataset always stores ours (`opengl`)."""


def _list_labelers(schema: dict[str, Any]) -> None:

    schema["enum"] = labeler_names()


class ModelLabels(Settings):
    """Pseudo-labels from an off-the-shelf predictor."""

    kind: str = Field(json_schema_extra=_list_labelers)
    """Name of a labeler: built in, or registered by an installed package."""
    weights: str
    """Id in `data_manifests/models.yaml`, a hub id, or a local path."""
    batch_size: PositiveInt = 8
    dtype: Precision = "float32"
    options: dict[str, Any] = {}
    """The labeler's other options, named as in its `build`, e.g. {pad: true, flip: true} for zoedepth."""
    # Left out of the dump, and so of the fingerprint, while it is off.
    check_flip: bool = since(False)
    """Also label the mirrored image, and store the difference between the two labels; doubles the time."""

    @field_validator("kind")
    @classmethod
    def _is_a_labeler(cls, kind: str) -> str:

        names = labeler_names()
        if kind not in names:
            raise ValueError(f"no such labeler; choose one of: {', '.join(['exact', *names])}")
        return kind


def _labels_tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "<exact>" if kind == "exact" else "<model>"


LabelsConfig = Annotated[
    Annotated[ExactLabels, Tag("<exact>")] | Annotated[ModelLabels, Tag("<model>")], Discriminator(_labels_tag)
]
