"""Bounds on the scores of images, prompts and labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from dmp_core.names import Fraction
from dmp_core.settings import Settings, since

Bits = Annotated[int, Field(ge=1, le=65)]


class QualityConfig(Settings):
    """Bounds on scores, which are always stored; samples outside are dropped. null: no bound. See docs/quality.md."""

    clip_model: str | None = None
    """CLIP model that scores the agreement of image and prompt: a hub id or a local folder."""
    drop_flagged: bool = True
    """Drop images that the image source's own safety checker flagged."""
    min_std: PositiveFloat | None = 1.0
    """Standard deviation of the luminance, 8-bit levels; less is a blank image."""
    max_clipped: Fraction | None = None
    """Share of pixels whose every channel is 0 or 255."""
    min_sharpness: PositiveFloat | None = None
    """Variance of the luminance's Laplacian, levels²; it depends on the resolution."""
    min_hash_distance: Bits | None = 3
    """Bits of 64 between the perceptual hashes of an image and of the nearest earlier one in its split."""
    min_test_distance: Bits | None = 3
    """The same between a training image and the nearest one in the scored splits that share a keyword with it."""
    max_prompt_similarity: Fraction | None = None
    """Words in common with the nearest earlier prompt of the split / words in either."""
    min_clip_score: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine of image and prompt under `clip_model`."""
    min_labelled: Fraction | None = None
    """Share of pixels that have a normal, a depth, a class; each checked separately."""
    min_unit: Fraction | None = None
    """Share of the normals whose length is 1 ± 0.05."""
    min_normal_z: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Mean z of the normals; below 0 they face away from the viewer."""
    max_far: PositiveFloat | None = None
    """Largest depth, metres."""
    min_classes: PositiveInt | None = None
    """Number of classes in the class map."""
    max_class_share: Fraction | None = None
    """Largest class's share of the labelled pixels."""
    min_label_std: Fraction | None = None
    """Standard deviation of albedo and of shading, both in [0, 1]; 0 is a constant map."""
    max_label_clipped: Fraction | None = None
    """Share of the values of albedo and of shading that are 0 or 1."""
    max_flip_degrees: PositiveFloat | None = None
    """With `check_flip`: mean angle between the normals of an image and of its mirrored copy."""
    max_flip_abs_rel: PositiveFloat | None = None
    """With `check_flip`: mean relative difference of the depths."""
    min_flip_agreement: Fraction | None = None
    """With `check_flip`: share of pixels of the same class."""
    max_flip_mse: PositiveFloat | None = None
    """With `check_flip`: mean squared difference of albedo, and of shading."""
    rejects: list[str] | None = since(None)
    """Keys of samples to drop, whatever their scores."""
    rejects_file: str | None = since(None)
    """A file with such keys, one per line, as `dmp app` writes it: `rejects.txt`; they are added to `rejects`."""

    @model_validator(mode="after")
    def _scored(self) -> QualityConfig:
        if self.min_clip_score is not None and self.clip_model is None:
            raise ValueError("min_clip_score: needs clip_model, which makes that score")
        return self
