"""The recipe of a prior: one typed model per part, read from `data_manifests/prior_mini.yaml`."""

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
from dmp_core.render import PROVIDES
from dmp_core.resources import manifest_path
from dmp_core.settings import Settings, raise_readable, read_yaml

Share = Annotated[float, Field(ge=0, le=1)]


class SourceConfig(Settings):
    """Keywords of one kind, and their share of the scenes."""

    keywords: list[str] = []
    """Keywords given here."""
    keywords_file: str | None = None
    """Or a list in `data_manifests/keywords/`."""
    share: Annotated[float, Field(gt=0, le=1)]
    """Share of all scenes; the shares of all sources are normalised to 1."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.keywords) == bool(self.keywords_file):
            raise ValueError("give either keywords or keywords_file, and not both")
        return self


class SceneConfig(Settings):
    """The rendered scenes: their content and rendering."""

    scenes: PositiveInt = 7000
    seed: int = 20_000
    """Scene i depends only on (seed, i): its keyword, caption and image. Far from the datasets' seeds."""
    sources: dict[str, SourceConfig]
    resolution: Annotated[int, Field(ge=16, le=1024)] = 64
    samples_per_pixel: PositiveInt = 16
    max_depth: PositiveInt = 4
    scenes_per_shard: PositiveInt = 250
    hold_out_every: Annotated[int, Field(ge=2)] = 40
    """Scene i with i % this == 0 is held out; losses and ceilings are measured on these."""


class TrainingConfig(Settings):
    """Settings of both trainings. Either `steps` or `minutes` ends a training, whichever comes first."""

    steps: PositiveInt = 20_000
    minutes: PositiveFloat | None = None
    """Wall-clock budget; the learning rate's cosine ends with it. None: only `steps` counts."""
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the average of the weights, which is shipped; faster at first, (1 + k) / (10 + k)."""
    bf16: bool = False
    """Multiply in bfloat16, weights in float32: 1.7 times as fast where the processor supports it."""
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 20
    seed: int = 0


class VAEConfig(TrainingConfig):
    """AutoencoderKL: one halving per level except the first."""

    block_out_channels: list[PositiveInt] = [32, 32, 64, 128]
    layers_per_block: PositiveInt = 1
    latent_channels: PositiveInt = 16
    norm_num_groups: PositiveInt = 16
    label_share: Share = 0.4
    """Share of label images in the batches, so that the VAE can encode what DMP predicts."""
    label_images: list[str] = Field(
        default=list(PROVIDES), min_length=1, exclude_if=lambda names: names == list(PROVIDES)
    )
    """Their modalities, among the rendered ones. The order changes the draws."""
    depth_scale: PositiveFloat = 8.0
    palette: str = "default"
    guided_steps: Annotated[int, Field(ge=0)] = 0
    """First steps, in which encoder and decoder learn separately, against the principal components of the patches:
    each then has a fixed target and does not depend on the other. Joint training follows."""
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
    """Positions; longer captions are truncated."""
    hidden_size: PositiveInt = 160
    layers: PositiveInt = 3
    heads: PositiveInt = 5
    captions: PositiveInt = 8_000
    """Captions that the tokenizer is trained on (more than scenes: they cost nothing)."""


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
    """Clip of the signal-to-noise ratio in the loss weights (Hang et al. 2023); None: equal weights."""


class JudgeConfig(TrainingConfig):
    """The network that recognises place and colours in an image: `judge.py`."""

    steps: PositiveInt = 2400
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    checkpoint_every: PositiveInt = 100_000
    widths: list[PositiveInt] = [16, 32, 64, 128]
    """Channels of the levels, each at half the resolution of the previous one."""
    features: PositiveInt = 64
    """Length of the feature vectors by which two images are compared."""


class QualityConfig(Settings):
    """Settings of the finished prior's evaluation: `quality.py`."""

    samples: Annotated[int, Field(ge=2)] = 640
    sampling_steps: PositiveInt = 25
    guidance_scale: NonNegativeFloat = 4.0
    seed: int = 0
    judge: JudgeConfig = JudgeConfig()


class PriorConfig(Settings):
    """The whole recipe."""

    name: str = "mini"
    start: str | None = None
    """A prior to start from: `shipped:NAME` or a folder. Its tokenizer is kept, and its autoencoder unless
    `tune` says otherwise; U-Net and text encoder are trained further. None: everything from random weights."""
    keep: Literal["all", "autoencoder"] = "all"
    """Parts of `start` to use. `autoencoder`: U-Net, text encoder and tokenizer are new."""
    tune: bool = False
    """Train the autoencoder of `start` further, by `vae` and before the U-Net, which then sees other latents."""
    scenes: SceneConfig
    vae: VAEConfig = VAEConfig()
    unet: UNetConfig = UNetConfig()
    quality: QualityConfig = QualityConfig()
    workers: PositiveInt = 2
    """Processes that render; threads that train, each on a share of every batch."""

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
