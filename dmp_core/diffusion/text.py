"""From texts to the U-Net's conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def tokenise(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Token ids (B, L), padded or cut to the tokenizer's length."""
    tokens: Tensor = tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return tokens


def count_cut(tokenizer: Any, texts: Sequence[str]) -> int:
    """Number of texts that `tokenise` would cut."""
    rows = tokenizer(list(texts), truncation=False, verbose=False).input_ids
    return sum(len(row) > tokenizer.model_max_length for row in rows)


@torch.no_grad()
def embed_texts(pipeline: Any, texts: Sequence[str], batch_size: int = 64) -> Tensor:
    """Embeddings (B, L, D) on the CPU, for a text encoder that is not trained.

    pipeline: any with `tokenizer` and `text_encoder`.
    """
    encoder = pipeline.text_encoder
    starts = range(0, len(texts), batch_size)
    batches = (tokenise(pipeline.tokenizer, texts[start : start + batch_size]) for start in starts)
    return torch.cat([encoder(tokens.to(encoder.device))[0].cpu() for tokens in batches])
