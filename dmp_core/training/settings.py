"""Settings of latents and of every fit by gradient descent."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dmp_core.evaluation.colours import Space
from dmp_core.modalities.base import Code, DecodedClasses, DepthCurve
from dmp_core.modalities.registry import ModalityName
from dmp_core.settings import Settings, since


class LatentsConfig(Settings):
    """VAE latents (posterior mode), encoded once before training."""

    flip: bool = True
    """Also encode every image mirrored; a mirrored normal map has its x negated."""
    resolution: PositiveInt | None = None
    """Resize images to this size before encoding; None keeps their size."""
    resolutions: dict[ModalityName, PositiveInt] = {}
    """For single modalities that need another one: small objects need more latents."""
    batch_size: PositiveInt = 16
    """Images that the VAE encodes at once."""
    depth_scale: PositiveFloat = 8.0
    """Depth is divided by this and clipped to [0, 1] before encoding; metres."""
    depth_curve: DepthCurve = since("linear")
    """How grey levels grow with depth: `log` and `sqrt` give near surfaces more of them; see docs/modalities.md."""
    depth_clip: bool = since(True)
    """False: depths above `depth_scale` are brighter than white, instead of white."""
    palette: str = "default"
    """Colour code of the segmentation classes: a name in `data_manifests/palettes/`."""
    min_class_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Segmentation is predicted among the classes that cover at least this share of the training labels' pixels. Where
    two classes meet, colours are in between, and may be those of a class that is hardly ever right."""

    colour_space: Space = since("rgb")
    """Where segmentation searches the colour nearest to a predicted one; `lab8`: OpenCV's 8-bit Lab, as published."""
    decoded_classes: DecodedClasses = since("seen")
    """What segmentation is predicted among. `seen`: the classes of the training labels, see `min_class_share`.
    `paper`: the paper's 29 bedroom classes, all others black, as published: near black is then class 1, the first of
    the others."""

    def resolution_of(self, modality: str) -> int | None:
        """At which the network works for a modality: shorter side in pixels; None: the images' own."""
        return self.resolutions.get(modality, self.resolution)

    @property
    def code(self) -> Code:
        """How labels become images."""
        return Code(
            self.depth_scale,
            self.depth_curve,
            self.depth_clip,
            self.palette,
            colour_space=self.colour_space,
            decoded_classes=self.decoded_classes,
        )


class TrackedConfig(Settings):
    """A fit that reports its curves."""

    technical: ClassVar[tuple[str, ...]] = ("trackers",)
    """Fields that change no result: a fit is known by its others."""

    trackers: list[Literal["mlflow", "trackio", "wandb"]] = since([])
    """Where curves go besides `loss.csv` and TensorBoard; each is an extra of its own, and changes no result."""

    @model_serializer(mode="wrap")
    def _without_technical(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if info.context and info.context.get("fingerprint"):
            values = {name: value for name, value in values.items() if name not in self.technical}
        return values

    def recorded(self) -> dict[str, Any]:
        """As results contain them: where the curves went changes no byte."""
        return self.model_dump(mode="json", exclude={"trackers"})


class FitConfig(TrackedConfig):
    """Settings of every fit by gradient descent; `dmp_core.training.loop` reads them."""

    technical = ("processes", "nodes", "trackers")

    steps: PositiveInt = 50_000
    """Updates of the weights."""
    batch_size: PositiveInt = 8
    """Samples per batch."""
    gradient_accumulation: PositiveInt = 1
    """Batches per update; their gradients are averaged."""
    learning_rate: PositiveFloat = 1e-4
    """Highest learning rate, of AdamW."""
    lr_schedule: Literal["cosine", "constant", "linear"] = "cosine"
    """The rate after `warmup_steps`: down to 0 along half a cosine or a line, or not at all."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """First steps, in which the rate grows linearly."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW's."""
    max_grad_norm: PositiveFloat = 1.0
    """Longer gradients are shortened to this norm."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of the network's computation."""
    tf32: bool = since(False)
    """On a GPU, multiply float32 matrices with ten bits of mantissa instead of 23: faster, less exact."""
    checkpoint_every: PositiveInt = 1000
    """Steps between two checkpoints, from which an interrupted training resumes."""
    log_every: PositiveInt = 10
    """Steps between two points in TensorBoard; `loss.csv` has every step."""
    seed: int = 0
    """Of the order of samples, of timesteps and of initial weights."""
    processes: PositiveInt | Literal["auto"] = since(1)
    """Processes that share each batch, on a GPU each; `auto`: one per visible GPU. The result is the same up to
    rounding, so a fit is known by its other settings."""
    nodes: PositiveInt = since(1)
    """Machines that share each batch, each with `processes` of its own and the same command; docs/machines.md."""

    @model_validator(mode="after")
    def _divides_its_batch(self) -> Self:
        shares = self.nodes * (self.processes if isinstance(self.processes, int) else 1)
        if self.batch_size % shares:
            field = "processes" if self.nodes == 1 else "nodes"
            raise ValueError(f"{field}: {shares} processes cannot share a batch of {self.batch_size} evenly")
        return self

    @property
    def draws(self) -> int:
        """Samples that the fit sees."""
        return self.steps * self.batch_size * self.gradient_accumulation


class LoraConfig(Settings):
    """Low-rank adapters in the U-Net: all that is trained."""

    rank: PositiveInt = 4
    """Rank of each layer's update."""
    alpha: PositiveFloat | None = None
    """LoRA scale is alpha / rank; None means alpha = rank, a scale of 1."""
    targets: Literal["attention", "self_attention", "all"] = "attention"
    """Layers that get an update: q, k, v and output of all attention (as published), of self-attention only, or every
    linear and convolution layer."""
