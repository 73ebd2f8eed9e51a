"""Settings of SDEdit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dmp_core.methods.shared.settings import LabelPriorFit
from dmp_core.settings import Settings


class SDEditSampling(Settings):
    """How SDEdit is run."""

    strength: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the diffusion that is run; 1 forgets the image. The middle of the 0.3 to 0.6 that its authors advise."""
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Of the whole diffusion; `strength` of them are taken."""
    seed: int = 0
    """Of the noise, together with the sample's key."""

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
