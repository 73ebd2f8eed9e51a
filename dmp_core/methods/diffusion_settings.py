"""Settings of the compared methods that start from a diffusion model; light to import, as all configuration is.

Defaults are the published ones where a publication states them. `fit` is what training reads, `sampling` what
prediction reads: changing the latter trains nothing anew.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from dmp_core.config.base import Settings
from dmp_core.config.stages import FitConfig, LoraConfig, MethodConfig
from dmp_core.modalities import built_in

Part = TypeVar("Part", bound=MethodConfig)


def _part(settings: MethodConfig, kind: type[Part]) -> Part:
    """Those of the settings that `kind` has."""
    return kind(**{name: getattr(settings, name) for name in kind.model_fields if name != "method"})


# ---------------------------------------------------------------------------------- SDEdit, DDIB
class LabelPriorConfig(FitConfig):
    """The prior fine-tuned on label images with ordinary noise (eq. 1): what SDEdit and DDIB both generate with.

    The paper fine-tunes as DMP is fine-tuned, so its numbers of steps, rate and LoRA rank are the defaults.
    """

    weights: Literal["lora", "all"] = "lora"
    """What learns: low-rank adapters, or the whole U-Net."""
    lora: LoraConfig = LoraConfig()
    use_prompt: bool = False
    """Condition on the caption; False trains with the empty prompt."""


class LabelPriorFit(MethodConfig):
    """What SDEdit and DDIB share: one fit, in SDEdit's name."""

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
        return _part(self, LabelPriorFit)


class SDEditSampling(Settings):
    """How SDEdit is run."""

    strength: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the diffusion that is run; 1 forgets the image. The middle of the 0.3 to 0.6 that its authors advise."""
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Of the whole diffusion; `strength` of them are taken."""
    seed: int = 0
    """Of the noise, with a sample's key."""

    @property
    def passes(self) -> int:
        """Of the U-Net, for one image."""
        return max(1, round(self.strength * self.num_steps))


class SDEditConfig(LabelPriorFit):
    """Noise the image to a strength, denoise it as a label image (Meng et al. 2022)."""

    method: Literal["sdedit"] = "sdedit"
    sampling: SDEditSampling = SDEditSampling()

    @property
    def inference(self) -> SDEditSampling:
        return self.sampling


class DDIBSampling(Settings):
    """How DDIB is run."""

    num_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Each way."""

    @property
    def passes(self) -> int:
        """Of the U-Net, for one image."""
        return 2 * self.num_steps


class DDIBConfig(LabelPriorFit):
    """Invert the image with the prior, generate with SDEdit's fine-tuned model (Su et al. 2023). Deterministic."""

    method: Literal["ddib"] = "ddib"
    sampling: DDIBSampling = DDIBSampling()

    @property
    def inference(self) -> DDIBSampling:
        return self.sampling


# ------------------------------------------------------------------------------ InstructPix2Pix
class InstructConfig(FitConfig):
    """Training an editor from a text-to-image model (Brooks et al. 2023, section 3.2)."""

    steps: PositiveInt = 10_000
    batch_size: PositiveInt = 1024
    lr_schedule: Literal["cosine", "constant", "linear"] = "constant"
    dropout: Annotated[float, Field(ge=0, le=0.3)] = 0.05
    """Probability of dropping the instruction alone, of dropping the image alone, and of dropping both."""


class EditSampling(Settings):
    """How an editor is asked."""

    num_steps: Annotated[int, Field(ge=1, le=1000)] = 100
    guidance_scale: Annotated[float, Field(ge=1)] = 7.5
    """Towards the instruction; 1 is none, of the image neither."""
    image_guidance_scale: Annotated[float, Field(ge=1)] = 1.5
    """Towards the image."""
    seed: int = 0
    """Of the noise, with a sample's key."""

    @property
    def passes(self) -> int:
        """Of the U-Net, for one image: guided, each step asks three times."""
        return self.num_steps * (1 if self.guidance_scale == 1 else 3)


class EditorMethodConfig(MethodConfig):
    """What the methods share that ask the editor, named by `editor.model` or made by the DAG."""

    @property
    def reads_editor(self) -> bool:
        return True


def _instructions(given: dict[str, str] | None = None) -> dict[str, str]:
    """Modality → instruction: the modalities' own, unless others are given. (The paper cites the depth map's.)"""
    return {modality.name: modality.instruction for modality in built_in()} | (given or {})


Instructions = Annotated[dict[str, str], BeforeValidator(_instructions), Field(default_factory=_instructions)]
"""Modalities that are not named keep theirs."""


class HardInstructFit(EditorMethodConfig):
    """Nothing is trained: the instruction is written down."""

    method: Literal["ip2p_hard"] = "ip2p_hard"
    instructions: Instructions
    """Modality → what the editor is told."""


class HardInstructConfig(HardInstructFit):
    """InstructPix2Pix with instructions written by hand."""

    sampling: EditSampling = EditSampling()

    @property
    def fitted(self) -> HardInstructFit:
        return _part(self, HardInstructFit)

    @property
    def inference(self) -> EditSampling:
        return self.sampling


class TokenConfig(FitConfig):
    """One token's embedding learns, all else is frozen (Gal et al. 2023's rate and steps)."""

    steps: PositiveInt = 5000
    learning_rate: PositiveFloat = 5e-3
    lr_schedule: Literal["cosine", "constant", "linear"] = "constant"
    instruction: Annotated[str, Field(pattern=r"(^|\s)\*(\s|$)")] = "make it into *"
    """Where the token stands: the asterisk."""
    initial_word: str = "map"
    """The embedding that it starts from."""


class LearnedInstructFit(EditorMethodConfig):
    """One token of the instruction, optimised on the training set."""

    method: Literal["ip2p_learned"] = "ip2p_learned"
    fit: TokenConfig = TokenConfig()

    @property
    def draws(self) -> int:
        return self.fit.draws


class LearnedInstructConfig(LearnedInstructFit):
    """InstructPix2Pix told what the learnt token says."""

    sampling: EditSampling = EditSampling()

    @property
    def fitted(self) -> LearnedInstructFit:
        return _part(self, LearnedInstructFit)

    @property
    def inference(self) -> EditSampling:
        return self.sampling


# ---------------------------------------------------------------------------------------- VISII
class VisiiFitConfig(FitConfig):
    """An instruction's embedding learns from pairs of before and after (Nguyen et al. 2023)."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    lr_schedule: Literal["cosine", "constant", "linear"] = "constant"
    num_pairs: PositiveInt | None = 1
    """How many pairs, the first of the training set; None: all of it, as the DMP paper has it."""
    mse_weight: PositiveFloat = 4.0
    clip_weight: NonNegativeFloat = 0.1
    """Of the alignment with the pairs' direction in CLIP's space; matters only with `clip_model`."""
    clip_model: str | None = None
    """CLIP whose text encoder is the editor's (openai/clip-vit-large-patch14 for Stable Diffusion); None: no such
    term."""
    guidance_scale: Annotated[float, Field(ge=1)] = 7.5
    image_guidance_scale: Annotated[float, Field(ge=1)] = 1.5
    """The loss sees the guided answer, as published; both 1: the plain one, at a third of the cost."""


class VisiiSampling(EditSampling):
    """How the learnt instruction is followed."""

    num_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    noise: Literal["same", "fresh"] = "same"
    """Start from the noise that training ended each image in, which keeps the edit the same, or from a sample's own."""


class VisiiFit(EditorMethodConfig):
    """An instruction's embedding, inverted from pairs."""

    method: Literal["visii"] = "visii"
    fit: VisiiFitConfig = VisiiFitConfig()
    initial_instructions: Instructions
    """One per modality: what the embedding starts from. (The authors caption the first `after` image instead.)"""

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
        return _part(self, VisiiFit)

    @property
    def inference(self) -> VisiiSampling:
        return self.sampling
