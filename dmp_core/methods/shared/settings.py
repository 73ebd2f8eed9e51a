"""Settings that several of the methods share. Defaults are the published ones where a publication states them.

`fit` is what training reads, `sampling` what prediction reads: changing the latter does not train again.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from dmp_core.methods.settings import MethodConfig
from dmp_core.modalities import built_in
from dmp_core.names import Fraction
from dmp_core.settings import Settings
from dmp_core.training.settings import FitConfig, LoraConfig, TrackedConfig

Part = TypeVar("Part", bound=MethodConfig)


def part_of(settings: MethodConfig, kind: type[Part]) -> Part:
    """The settings that `kind` has."""
    return kind(**{name: getattr(settings, name) for name in kind.model_fields if name != "method"})


class LabelPriorConfig(FitConfig):
    """The prior fine-tuned on label images with ordinary noise (eq. 1): used by SDEdit and DDIB.

    The paper fine-tunes as DMP is fine-tuned, so its numbers of steps, rate and LoRA rank are the defaults.
    """

    weights: Literal["lora", "all"] = "lora"
    """What is trained: low-rank adapters, or the whole U-Net."""
    lora: LoraConfig = LoraConfig()
    use_prompt: bool = False
    """Condition on the caption; False trains with the empty prompt."""


class LabelPriorFit(MethodConfig):
    """The fit that SDEdit and DDIB share, under SDEdit's name."""

    method: str = "sdedit"
    fit: LabelPriorConfig = LabelPriorConfig()

    @property
    def draws(self) -> int:
        return self.fit.draws

    @property
    def reads_prompts(self) -> bool:
        return self.fit.use_prompt

    @property
    def fitted(self) -> LabelPriorFit:
        return part_of(self, LabelPriorFit)


class InstructConfig(FitConfig):
    """Training an editor from a text-to-image model (Brooks et al. 2023, section 3.2)."""

    steps: PositiveInt = 10_000
    batch_size: PositiveInt = 1024
    lr_schedule: Literal["cosine", "constant", "linear"] = "constant"
    dropout: Annotated[float, Field(ge=0, le=0.3)] = 0.05
    """Probability of dropping the instruction alone, of dropping the image alone, and of dropping both."""


class EditSampling(Settings):
    """How an editor is run."""

    num_steps: Annotated[int, Field(ge=1, le=1000)] = 100
    """Steps of the sampler."""
    guidance_scale: Annotated[float, Field(ge=1)] = 7.5
    """Towards the instruction; 1 is no guidance, neither by instruction nor by image."""
    image_guidance_scale: Annotated[float, Field(ge=1)] = 1.5
    """Towards the image."""
    seed: int = 0
    """Of the noise, together with the sample's key."""

    @property
    def passes(self) -> int:
        """Of the U-Net, for one image: with guidance, each step takes three."""
        return self.num_steps * (1 if self.guidance_scale == 1 else 3)


class EditorMethodConfig(MethodConfig):
    """Shared by the methods that use the editor, which is `editor.model` or trained by the DAG."""

    @property
    def reads_editor(self) -> bool:
        return True


def _instructions(given: dict[str, str] | None = None) -> dict[str, str]:
    """Modality → instruction: the modalities' own, unless others are given. (The paper cites the depth map's.)"""
    return {modality.name: modality.instruction for modality in built_in()} | (given or {})


Instructions = Annotated[dict[str, str], BeforeValidator(_instructions), Field(default_factory=_instructions)]
"""Modalities that are omitted keep their default."""


class AdversarialConfig(TrackedConfig):
    """Settings of every adversarial fit."""

    steps: PositiveInt
    """Updates of the generator."""
    batch_size: PositiveInt
    """Pairs per step."""
    flip: bool = True
    """Mirror half of the pairs."""
    decay_from: Fraction = 0.5
    """Share of the steps after which the learning rates fall linearly to 0."""
    seed: NonNegativeInt = 0
    """Of the order of samples, of noise and of initial weights."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Number format of the networks' computation."""
    checkpoint_every: PositiveInt = 1000
    """Steps between two checkpoints, from which an interrupted training resumes."""
    log_every: PositiveInt = 50
    """Steps between two points in TensorBoard; `loss.csv` has every step."""
