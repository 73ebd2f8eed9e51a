"""The network's text conditioning, per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dmp_core.diffusion.text import embed_texts
from dmp_core.errors import InputError


class TextEmbeddings:
    """What the U-Net is conditioned on: the empty prompt, (1, L, D), or each sample's text, (B, L, D)."""

    def __init__(self, pipeline: Any, prompts: Sequence[str] | None, samples: int, dtype: torch.dtype) -> None:
        """Computed once: the text encoder is frozen. Raises InputError unless there is one text per sample.

        prompts: None: the empty prompt, for all samples.
        """
        if prompts is not None and len(prompts) != samples:
            raise InputError(f"texts: {len(prompts)} for {samples} samples; give one each")
        self.per_sample = prompts is not None
        self.embeddings = embed_texts(pipeline, [""] if prompts is None else prompts).to(dtype)

    def __call__(self, indices: Tensor) -> Tensor:
        return self.embeddings[indices] if self.per_sample else self.embeddings
