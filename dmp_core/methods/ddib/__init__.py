"""DDIB (Su et al. 2023): to noise with the images' prior, from there to a label with the labels' prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dmp_core.methods.ddib.settings import DDIBConfig, DDIBSampling
from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.generation import LabelPriorMethod

if TYPE_CHECKING:
    from torch import Tensor

    from dmp_core.diffusion import DMPPipeline


class Ddib(LabelPriorMethod):
    name, title = "ddib", "DDIB"
    settings: type[MethodConfig] = DDIBConfig

    def translate(
        self,
        base: DMPPipeline,
        unet: Any,
        latents: Tensor,
        keys: Sequence[str],
        own: DDIBSampling,
        prompts: list[str] | None,
    ) -> Tensor:
        from dmp_core.methods.ddib.algorithm import ddib_latents

        return ddib_latents(base, unet, latents, own.num_steps, prompts)
