"""How much of a prompt a model reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dmp_core.weights.settings import NamedModel

logger = logging.getLogger(__name__)


def cut_prompts(model: NamedModel, prompts: Iterable[str]) -> dict[str, int]:
    """For the manifest: how many prompts the model reads in part only, being longer than its text encoders' limit."""
    from dmp_core.diffusion.text import count_cut
    from dmp_core.weights.load import load_tokenizers

    texts, tokenizers = list(prompts), load_tokenizers(model)
    cut = min((count_cut(tokenizer, texts) for tokenizer in tokenizers), default=0)
    if not cut:
        return {}
    limit = max(tokenizer.model_max_length for tokenizer in tokenizers)
    logger.warning("%d of %d prompts are longer than the %d tokens that %s reads", cut, len(texts), limit, model.model)
    return {"prompts_cut": cut}
