"""Settings of the schedule and the reverse process."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from dmp_core.modalities import Modality
from dmp_core.names import Precision, Source, Spacing
from dmp_core.settings import Settings, since


class ScheduleConfig(Settings):
    """The noise schedule, with diffusers' names of its options."""

    spacing: Spacing = "leading"
    """How a sampler's timesteps are spaced: `leading` as published, `trailing` starts at the last timestep, `linspace`
    has both ends."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that nothing of the label is left at the last timestep (Lin et al. 2023)."""
    set_alpha_to_one: bool = False
    """End at the label itself; False leaves the share of the image that the first timestep
    has (3 %), as published."""


class SamplingConfig(Settings):
    """Reverse process (eq. 4)."""

    num_steps: PositiveInt = 5
    """Steps from the image to the label."""
    source: Source = "oracle"
    """The image in each step: `oracle` takes the given one (eq. 4), `estimated` what the network
    implies (plain DDIM)."""
    spacing: Spacing | None = since(None)
    """Of the steps; None: as the adapter was trained. All timesteps are trained unless `train.num_timesteps` says
    otherwise, so that one adapter serves every spacing."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none. Read only with `use_prompt`."""
    use_prompt: bool = False
    """Condition on the caption; False predicts with the empty prompt, which the authors recommend."""
    mirrored: bool = since(False)
    """Predict the mirrored image as well, and take the mean of both: better, in twice the time. Segmentation does
    not use it, since the mean of two classes' colours may be a third one's."""
    colour_noise: PositiveFloat | None = since(None)
    """In segmentation, the error of a predicted colour: standard deviation of a channel (whose range is 0 to 1). A
    pixel then gets the class that is likeliest by its colour and by the classes' shares of the training labels. None:
    the class of the nearest colour."""
    batch_size: PositiveInt = 16
    """Images that are predicted at once; fewer where memory runs out."""
    dtype: Precision = "float32"
    """Of the U-Net, the text encoder and the VAE's decoding."""
    compile: bool = since(False)
    """Compile the U-Net's transformer blocks (`torch.compile`): a minute at the start, then faster on a GPU. Equal
    up to rounding. Needs a C++ compiler."""
    decoder: Annotated[str, Field(min_length=1)] | None = since(None)
    """A small network that decodes latents instead of the base model's VAE: faster, and slightly less exact. A folder,
    id of the registry or hub id of a diffusers `AutoencoderTiny` that was trained for the base, such as `taesd` for
    Stable Diffusion 1 and 2. None: the base model's own."""

    @property
    def passes(self) -> int:
        """Of the U-Net, for one image."""
        guided = self.use_prompt and self.guidance_scale != 1
        return self.num_steps * (2 if guided else 1) * (2 if self.mirrored else 1)

    def for_modality(self, modality: Modality) -> SamplingConfig:
        """Without settings that only other modalities read: changing those does not predict again."""
        other = {"mirrored": False} if modality.has_classes else {"colour_noise": None}
        return self.model_copy(update=other)
