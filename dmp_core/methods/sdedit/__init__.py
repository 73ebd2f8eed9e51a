"""SDEdit (Meng et al. 2022): noise the image to a strength, denoise it as a label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dmp_core.methods.sdedit.settings import SDEditConfig, SDEditSampling
from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.generation import LabelPriorMethod
from dmp_core.store import sample_seed

if TYPE_CHECKING:
    from torch import Tensor

    from dmp_core.diffusion import DMPPipeline


class Sdedit(LabelPriorMethod):
    name, title = "sdedit", "SDEdit"
    settings: type[MethodConfig] = SDEditConfig

    def translate(
        self,
        base: DMPPipeline,
        unet: Any,
        latents: Tensor,
        keys: Sequence[str],
        own: SDEditSampling,
        prompts: list[str] | None,
    ) -> Tensor:
        from dmp_core.methods.sdedit.algorithm import sdedit_latents

        seeds = [sample_seed(own.seed, key) for key in keys]
        return sdedit_latents(base, unet, latents, seeds, own.strength, own.num_steps, prompts)
