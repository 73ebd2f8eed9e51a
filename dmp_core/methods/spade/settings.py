"""Settings of SPADE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.settings import AdversarialConfig


class SpadeConfig(AdversarialConfig):
    """Settings of a SPADE fit. Defaults are the published ones at 256 × 256 pixels."""

    steps: PositiveInt = 62_500
    batch_size: PositiveInt = 32
    generator_learning_rate: PositiveFloat = 1e-4
    """Of the generator."""
    discriminator_learning_rate: PositiveFloat = 4e-4
    """Four times the generator's: the two-time-scale update rule."""
    channels: PositiveInt = 64
    """Of the generator at full resolution; each halving doubles them, up to 16 times."""
    upsamplings: Annotated[int, Field(ge=1, le=8)] = 5
    """Doublings from the generator's coarsest level, 8 × 8 pixels at 256²; 6 at 512²."""
    hidden_channels: PositiveInt = 128
    """Of the convolution that reads the image in each normalisation layer."""
    discriminator_channels: PositiveInt = 64
    """Of the discriminators' first layer."""
    discriminator_layers: Annotated[int, Field(ge=2)] = 4
    """Convolutions before the last one, per discriminator."""
    discriminator_scales: PositiveInt = 2
    """Discriminators; each sees half the size of the one before."""
    feature_matching: NonNegativeFloat = 10.0
    """Weight of the feature matching term."""
    perceptual: NonNegativeFloat = 0.0
    """Weight of the perceptual term: 10 as published, 0 omits it."""
    perceptual_weights: str | None = None
    """Local file with torchvision's VGG-19 weights (`vgg19-dcbb9e9d.pth`), for `perceptual`; never downloaded."""

    @model_validator(mode="after")
    def _weights_for_perceptual(self) -> SpadeConfig:
        if self.perceptual and not self.perceptual_weights:
            raise ValueError("perceptual: needs perceptual_weights, a file with torchvision's VGG-19 weights")
        return self


class SpadeSettings(SpadeConfig, MethodConfig):
    method: Literal["spade"] = "spade"

    @property
    def draws(self) -> int:
        return self.steps * self.batch_size
