"""Settings of DMP: fine-tuning with deterministic diffusion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from dmp_core.diffusion.settings import ScheduleConfig
from dmp_core.methods.settings import MethodConfig
from dmp_core.modalities import Modality
from dmp_core.names import Prediction
from dmp_core.settings import since
from dmp_core.training.settings import FitConfig, LoraConfig


class TrainConfig(FitConfig, MethodConfig):
    """Fine-tuning with deterministic diffusion (eq. 2-3, section 3.2)."""

    method: Literal["dmp"] = "dmp"
    # Left out of the dump, and so of the fingerprint, while they have the value from before there was a choice.
    weights: Literal["lora", "all"] = since("lora")
    """What is trained: low-rank layers (as published), or the whole U-Net."""
    init: Literal["pretrained", "random"] = since("pretrained")
    """random: the same U-Net with fresh random weights, so that a comparison shows what pre-training is
    worth; needs `weights: all`."""
    lora: LoraConfig = LoraConfig()
    prediction: Prediction = "v"
    """What the U-Net predicts: the image (x), the label (y), or their velocity (v; section 3.2)."""
    schedule: ScheduleConfig = ScheduleConfig()
    num_timesteps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Train only on what a sampler of this many steps uses: its timesteps, and the image itself (y_T = x) at the
    first. 1 trains the single pass. None: all timesteps (eq. 3)."""
    loss: Literal["latents", "decoded"] = since("latents")
    """What is compared: the network's output with its target (eq. 3), or the label image decoded from it
    with the true one, per pixel (L1, or `colour_error`); the latter needs `num_timesteps: 1`."""
    colour_error: Literal["l1", "l2"] = since("l1")
    """In segmentation with `loss: decoded`, how far a pixel is from its true colour: the mean of its channels' absolute
    differences, or their root mean square. Where several classes are likely, the best guess under `l1` is the median of
    each channel, which can be yet another class's colour; under `l2` it is a point between them (geometric median)."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = since(0)
    """In segmentation with `loss: decoded`, pixels count by (their class's share of all pixels)^-class_balance: at 0
    all count the same, at 1 all classes do."""
    compile: bool = since(False)
    """Compile the U-Net's transformer blocks (`torch.compile`): a minute at the start, then faster steps on a GPU.
    Equal up to rounding. Needs a C++ compiler."""
    use_prompt: bool = False
    """Condition on the caption; False trains with the empty prompt, which the authors recommend."""

    @property
    def reads_prompts(self) -> bool:
        return self.use_prompt

    @property
    def reads_labels(self) -> bool:
        return self.loss == "decoded"

    def for_modality(self, modality: Modality) -> TrainConfig:
        return self if modality.has_classes else self.model_copy(update={"colour_error": "l1"})

    @model_validator(mode="after")
    def _trains_random_weights(self) -> TrainConfig:
        if self.init == "random" and self.weights != "all":
            raise ValueError("init: random weights are useless unless all are trained; set weights: all as well")
        return self

    @model_validator(mode="after")
    def _decodes_in_a_single_pass(self) -> TrainConfig:
        if self.loss == "decoded" and self.num_timesteps != 1:
            raise ValueError(
                "loss: decoded images blend label and photograph except in a single pass; set num_timesteps: 1"
            )
        return self
