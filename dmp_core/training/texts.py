"""The network's text conditioning, per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dmp_core.diffusion.text import embed_texts
from dmp_core.errors import InputError
from dmp_core.training.transfer import to_device


class TextEmbeddings:
    """What the U-Net is conditioned on: the empty prompt, (1, L, D), or each sample's text, (B, L, D)."""

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str] | None,
        samples: int,
        dtype: torch.dtype,
        device: str | torch.device = "cpu",
    ) -> None:
        """Computed once: the text encoder is frozen. Raises InputError unless there is one text per sample.

        prompts: None: the empty prompt, for all samples.
        device: where they are needed; those of single samples stay on the host until then.
        """
        if prompts is not None and len(prompts) != samples:
            raise InputError(f"texts: {len(prompts)} for {samples} samples; give one each")
        self.per_sample = prompts is not None
        self.device = device
        self.embeddings = embed_texts(pipeline, [""] if prompts is None else prompts).to(dtype)
        if not self.per_sample:
            self.embeddings = self.embeddings.to(device)

    def __call__(self, indices: Tensor) -> Tensor:
        return to_device(self.embeddings[indices], self.device) if self.per_sample else self.embeddings
