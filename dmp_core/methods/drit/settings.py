"""Settings of DRIT++."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.settings import AdversarialConfig


class DritConfig(AdversarialConfig):
    """Settings of a DRIT++ fit. Defaults are the published ones (216 × 216 crops)."""

    steps: PositiveInt = 500_000
    batch_size: PositiveInt = 2
    """Images drawn from each of the two domains."""
    learning_rate: PositiveFloat = 1e-4
    """Of encoders, generators and the discriminators of images."""
    content_learning_rate: PositiveFloat = 4e-5
    """Of the content discriminator."""
    weight_decay: NonNegativeFloat = 1e-4
    """Of all optimisers."""
    content_updates: PositiveInt = 3
    """Updates of the content discriminator per step, each on its own draw."""
    channels: PositiveInt = 64
    """Of encoders and generators at full resolution; four times as many at the content's, a quarter of it."""
    residual_blocks: PositiveInt = 3
    """Of each domain's content encoder and generator, before and after the block that both domains share."""
    attributes: PositiveInt = 8
    """Length of the attribute vector."""
    discriminator_channels: PositiveInt = 64
    """Of the discriminators' first layer."""
    discriminator_layers: Annotated[int, Field(ge=2)] = 4
    """Convolutions before the last one, per discriminator."""
    discriminator_scales: PositiveInt = 3
    """Discriminators per domain; each sees half the size of the one before."""
    content_noise: NonNegativeFloat = 1.0
    """Standard deviation of the noise on the content while training; it stops encoders from hiding the domain in it."""
    content_adversarial: NonNegativeFloat = 1.0
    """Weight of the loss against the content discriminator."""
    domain_adversarial: NonNegativeFloat = 1.0
    """Weight of the loss against the discriminators of images."""
    cross_cycle: NonNegativeFloat = 10.0
    """Weight of L1 between an image and the same after its content was exchanged twice."""
    self_reconstruction: NonNegativeFloat = 10.0
    """Weight of L1 between an image and the one generated from its own content and attributes."""
    latent_regression: NonNegativeFloat = 10.0
    """Weight of L1 between drawn attributes and those that the encoder finds in the generated image."""
    kl: NonNegativeFloat = 0.01
    """Weight of the attributes' KL divergence from the standard normal distribution."""
    mode_seeking: NonNegativeFloat = 1.0
    """Weight of the term that wants different images for different attributes."""
    paired_l1: NonNegativeFloat = 0.0
    """Weight of |translation - the image's own label|: no part of DRIT++. Above 0, each step draws pairs."""


class DritSettings(DritConfig, MethodConfig):
    method: Literal["drit"] = "drit"

    @property
    def draws(self) -> int:
        return self.steps * self.batch_size
