"""Settings of DDIB."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dmp_core.methods.shared.settings import LabelPriorFit
from dmp_core.settings import Settings


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
