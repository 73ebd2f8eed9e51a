"""The recipe of a prior: one typed model a part, read from `data_manifests/prior_mini.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from dmp_core.overrides import layered
from dmp_core.resources import manifest_path
from dmp_core.settings import Settings, raise_readable, read_yaml
from dmp_core.synthesis import PROVIDES

Share = Annotated[float, Field(ge=0, le=1)]


class SourceConfig(Settings):
    """Keywords of one kind, and how many of the scenes they make up."""

    keywords: list[str] = []
    """Keywords given here."""
    keywords_file: str | None = None
    """Or a list in `data_manifests/keywords/`."""
    share: Annotated[float, Field(gt=0, le=1)]
    """Part of all scenes; the shares of all sources are normalised to 1."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.keywords) == bool(self.keywords_file):
            raise ValueError("give either keywords or keywords_file, and not both")
        return self


class SceneConfig(Settings):
    """The rendered scenes: what is in them, and how they are rendered."""

    scenes: PositiveInt = 7000
    seed: int = 20_000
    """Scene i is drawn from (seed, i) alone: its keyword, caption and picture. Far from the datasets' seeds."""
    sources: dict[str, SourceConfig]
    resolution: Annotated[int, Field(ge=16, le=1024)] = 64
    samples_per_pixel: PositiveInt = 16
    max_depth: PositiveInt = 4
    scenes_per_shard: PositiveInt = 250
    hold_out_every: Annotated[int, Field(ge=2)] = 40
    """Scene i with i % this == 0 is kept from training; losses and ceilings are measured on these."""


class TrainingConfig(Settings):
    """What both trainings share. Either `steps` or `minutes` ends a training, whichever comes first."""

    steps: PositiveInt = 20_000
    minutes: PositiveFloat | None = None
    """Wall-clock budget; the learning rate's cosine ends with it. None: `steps` alone counts."""
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Average of the weights that is shipped; a young average forgets faster, (1 + k) / (10 + k)."""
    bf16: bool = False
    """Multiply in bfloat16, weights in float32: 1.7 times as fast where the processor has the instructions for it."""
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 20
    seed: int = 0


class VAEConfig(TrainingConfig):
    """AutoencoderKL: one halving a level but the first."""

    block_out_channels: list[PositiveInt] = [32, 32, 64, 128]
    layers_per_block: PositiveInt = 1
    latent_channels: PositiveInt = 16
    norm_num_groups: PositiveInt = 16
    label_share: Share = 0.4
    """Part of the batches that is label images, so that the VAE can code what DMP predicts."""
    label_images: list[str] = Field(
        default=list(PROVIDES), min_length=1, exclude_if=lambda names: names == list(PROVIDES)
    )
    """Modalities that these are of, among those that scenes are rendered with. Their order matters to the draws."""
    depth_scale: PositiveFloat = 8.0
    palette: str = "default"
    guided_steps: Annotated[int, Field(ge=0)] = 0
    """First steps in which encoder and decoder learn apart, each against the principal components of the patches:
    both then have a fixed aim, where they would otherwise wait for each other. Joint training follows."""
    kl_weight: NonNegativeFloat = 3e-5
    """Weight of the mean KL divergence per latent value, against an L1 error per colour value."""
    gradient_weight: NonNegativeFloat = 0.5
    """Weight of the L1 error of horizontal and vertical differences: sharp edges without a perceptual network."""
    coarse_weight: NonNegativeFloat = 0.5
    """Weight of the L1 error of 4 × 4 means: right colours early in training."""

    @field_validator("label_images")
    @classmethod
    def _rendered(cls, names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in PROVIDES]:
            raise ValueError(f"{unknown[0]!r} is not rendered; choose among {', '.join(PROVIDES)}")
        return names


class TextConfig(Settings):
    """CLIP text encoder and its tokenizer, both trained here."""

    vocab_size: Annotated[int, Field(ge=600)] = 1500
    """Byte-pair tokens: 512 bytes, two special ones, the rest learnt from captions."""
    max_length: Annotated[int, Field(ge=8)] = 48
    """Positions; longer captions are cut."""
    hidden_size: PositiveInt = 160
    layers: PositiveInt = 3
    heads: PositiveInt = 5
    captions: PositiveInt = 8_000
    """Captions that the tokenizer is trained on (more than there are scenes: they cost nothing)."""


class UNetConfig(TrainingConfig):
    """UNet2DConditionModel with cross-attention at every level, trained to predict the noise."""

    block_out_channels: list[PositiveInt] = [128, 192]
    layers_per_block: PositiveInt = 1
    heads: PositiveInt = 4
    norm_num_groups: PositiveInt = 16
    text: TextConfig = TextConfig()
    caption_dropout: Share = 0.1
    """Captions replaced by the empty one, for classifier-free guidance and for DMP without prompts."""
    flip: bool = True
    """Also train on mirrored images; the captions name no left or right."""
    min_snr_gamma: PositiveFloat | None = None
    """Clip of the signal-to-noise ratio in the loss weights (Hang et al. 2023); None: all steps weigh the same."""


class JudgeConfig(TrainingConfig):
    """The network that reads place and colours off a picture: `judge.py`."""

    steps: PositiveInt = 2400
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    checkpoint_every: PositiveInt = 100_000
    widths: list[PositiveInt] = [16, 32, 64, 128]
    """Channels of the levels, each at half the resolution of the one before."""
    features: PositiveInt = 64
    """Values by which two pictures are compared."""


class QualityConfig(Settings):
    """How the finished prior is measured: `quality.py`."""

    samples: Annotated[int, Field(ge=2)] = 640
    sampling_steps: PositiveInt = 25
    guidance_scale: NonNegativeFloat = 4.0
    seed: int = 0
    judge: JudgeConfig = JudgeConfig()


class PriorConfig(Settings):
    """The whole recipe."""

    name: str = "mini"
    start: str | None = None
    """A prior to go on from: `shipped:NAME` or a folder. Its tokenizer is kept as it is, and its autoencoder unless
    `tune` says otherwise; U-Net and text encoder are trained on. None: everything from fresh weights."""
    keep: Literal["all", "autoencoder"] = "all"
    """What of `start` is taken over. `autoencoder`: U-Net, text encoder and tokenizer are made anew."""
    tune: bool = False
    """Train the autoencoder of `start` on, too, as `vae` says and before the U-Net, which then sees other latents."""
    scenes: SceneConfig
    vae: VAEConfig = VAEConfig()
    unet: UNetConfig = UNetConfig()
    quality: QualityConfig = QualityConfig()
    workers: PositiveInt = 2
    """Processes that render; threads that train, each on its share of every batch."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        factor = 2 ** (len(self.vae.block_out_channels) - 1)
        levels = 2 ** (len(self.unet.block_out_channels) - 1)
        if self.scenes.resolution % (factor * levels):
            raise ValueError(
                f"scenes.resolution: {self.scenes.resolution} must be a multiple of {factor * levels} "
                f"(the VAE divides by {factor}, the U-Net by another {levels})"
            )
        for part, config in (("vae", self.vae), ("unet", self.unet)):
            if config.batch_size % self.workers:
                raise ValueError(f"{part}.batch_size: {config.batch_size} must be a multiple of workers")
            if any(width % config.norm_num_groups for width in config.block_out_channels):
                raise ValueError(f"{part}.block_out_channels: all must be multiples of norm_num_groups")
        return self

    @property
    def latent_size(self) -> int:
        """Height and width of the latents."""
        return self.scenes.resolution // 2 ** (len(self.vae.block_out_channels) - 1)


def load_recipe(file: str | Path | None = None, overrides: list[str] | None = None) -> PriorConfig:
    """`data_manifests/prior_mini.yaml` < file < `a.b=value` overrides. Raises InputError naming the field."""
    settings, source = layered(read_yaml(manifest_path("prior_mini.yaml")), "prior_mini.yaml", file, overrides)
    try:
        return PriorConfig.model_validate(settings)
    except ValidationError as error:
        raise_readable(error, source)
