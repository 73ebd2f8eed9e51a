"""Settings of the image sources."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    PositiveInt,
    model_validator,
)

from dmp_core.modalities.registry import ModalityName
from dmp_core.modalities.settings import OwnModality
from dmp_core.settings import Settings, since

Patience = Annotated[int, Field(ge=0, le=100)]


class RenderImages(Settings):
    """Path-traced scenes with exact labels (Mitsuba 3)."""

    kind: Literal["render"] = "render"
    resolution: Annotated[int, Field(ge=16, le=1024)] = 64
    """Height and width in pixels."""
    samples_per_pixel: PositiveInt = 16
    """Paths traced per pixel: more take longer and give less noise."""
    max_depth: PositiveInt = 4
    """Longest light path."""
    patience: Patience = since(0)
    """How often an image that misses what its caption names is made again, from its next seed; see docs/quality.md."""


class DiffusionImages(Settings):
    """Images from a text-to-image diffusion model."""

    setting: ClassVar[str] = "images.model"
    kind: Literal["diffusion"] = "diffusion"
    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id, local folder in diffusers format, or `shipped:mini`; any text-to-image model."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None: the newest."""
    resolution: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    """Height and width in pixels."""
    scheduler: Literal["ddim", "model"] = "ddim"
    """`model`: the model's own scheduler; flow-matching models need it."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Steps of the scheduler."""
    guidance_scale: float = 7.5
    """Classifier-free guidance; 1 or less is none, and one pass of the U-Net per step instead of two."""
    negative_prompt: str | None = None
    """What images should not show; None: nothing."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto`: float32 on the CPU; on CUDA bfloat16, or float16 if the GPU has no bfloat16."""
    float32_latents: bool = since(False)
    """Keep latents and the scheduler's arithmetic in float32, whatever the networks' `dtype`; for `scheduler: ddim`."""
    safety_checker: bool = True
    """Record in every sample's json whether the model's own safety checker flags it; images are not changed."""
    patience: Patience = since(0)
    """How often an image below `quality.min_clip_score` is made again, from its next seed; see docs/quality.md."""

    @model_validator(mode="after")
    def _own_scheduler(self) -> DiffusionImages:
        if self.float32_latents and self.scheduler != "ddim":
            raise ValueError(
                "float32_latents: needs scheduler: ddim; a model's own scheduler decides its precision itself"
            )
        return self

    @model_validator(mode="after")
    def _negative_prompt_is_read(self) -> DiffusionImages:
        if self.negative_prompt is not None and self.guidance_scale <= 1:
            raise ValueError("negative_prompt: only guidance reads it; leave it out, or set guidance_scale above 1")
        return self


class ClipBound(Settings):
    """Which images are made again by their CLIP score; `plan` takes it from `quality`."""

    model: str
    model_hash: str
    least: float
    """Cosine of image and prompt."""


class FolderImages(Settings):
    """User-provided images; `plan` makes this from the split's `folder`."""

    kind: Literal["folder"] = "folder"
    folder: str = Field(exclude=True)
    """Their folder. Not part of the fingerprint: their content is, via the prompts, which are an input."""
    fit: Literal["crop", "shorter_side", "keep"]
    resolution: PositiveInt | None
    """Shorter side in pixels; None keeps the images as they are."""
    labels: list[ModalityName]
    """Modalities for which every image has a label file."""
    own_modalities: dict[ModalityName, OwnModality] = since({})
    """Definitions of those that are not built in."""
