"""Settings of VISII."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from dmp_core.methods.shared.settings import EditorMethodConfig, EditSampling, Instructions, part_of
from dmp_core.training.settings import FitConfig


class VisiiFitConfig(FitConfig):
    """An instruction's embedding is trained on pairs of before and after (Nguyen et al. 2023)."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    lr_schedule: Literal["cosine", "constant", "linear"] = "constant"
    num_pairs: PositiveInt | None = 1
    """Number of pairs, from the first of the training set; None: all, as in the DMP paper."""
    mse_weight: PositiveFloat = 4.0
    """Weight of the error of the predicted noise."""
    clip_weight: NonNegativeFloat = 0.1
    """Of the alignment with the pairs' direction in CLIP's space; matters only with `clip_model`."""
    clip_model: str | None = None
    """CLIP whose text encoder is the editor's (openai/clip-vit-large-patch14 for Stable Diffusion); None: no such
    term."""
    guidance_scale: Annotated[float, Field(ge=1)] = 7.5
    """Towards the instruction, in the loss."""
    image_guidance_scale: Annotated[float, Field(ge=1)] = 1.5
    """The loss uses the guided output, as published; both 1: the plain output, at a third of the cost."""


class VisiiSampling(EditSampling):
    """How the learnt instruction is applied."""

    num_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    noise: Literal["same", "fresh"] = "same"
    """Start from the fixed noise of training's last timestep, so that edits stay the same, or from each sample's."""


class VisiiFit(EditorMethodConfig):
    """An instruction's embedding, inverted from pairs."""

    method: Literal["visii"] = "visii"
    fit: VisiiFitConfig = VisiiFitConfig()
    initial_instructions: Instructions
    """Modality → what the embedding starts from; by default the modality's instruction. (The authors caption the first
    `after` image instead.)"""

    @property
    def draws(self) -> int:
        return self.fit.draws

    @property
    def own_model(self) -> tuple[str, str, str | None] | None:
        return ("fit.clip_model", self.fit.clip_model, None) if self.fit.clip_model else None


class VisiiConfig(VisiiFit):
    """Visual instruction inversion on top of InstructPix2Pix."""

    sampling: VisiiSampling = VisiiSampling()

    @property
    def fitted(self) -> VisiiFit:
        return part_of(self, VisiiFit)

    @property
    def inference(self) -> VisiiSampling:
        return self.sampling
