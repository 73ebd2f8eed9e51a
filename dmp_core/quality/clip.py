"""Agreement of image and prompt by a CLIP model: the cosine of their embeddings (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.weights.resolve import UNREADABLE, resolve_model, why_unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ClipScorer:
    """A CLIP model in transformers' format: an id of the registry, a local folder or a hub id.

    Raises InputError when it cannot be loaded.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        from transformers import CLIPModel, CLIPProcessor

        located = resolve_model(model, "quality.clip_model")
        try:
            network: Any = CLIPModel.from_pretrained(located.place, **located.options)
            self.processor: Any = CLIPProcessor.from_pretrained(located.place, **located.options)
        except UNREADABLE as error:
            reason = why_unreadable(error)
            raise InputError(f"quality.clip_model: {model}: not a CLIP model that can be loaded ({reason})") from None
        self.model, self.device = network.to(device).eval(), device

    def __call__(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[float]:
        """Cosine in [-1, 1] of every pair. images: uint8 (H, W, 3); prompts are truncated to the model's length."""
        import torch

        pictures = [Image.fromarray(image) for image in images]
        inputs = self.processor(text=list(prompts), images=pictures, return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            answer = self.model(**inputs.to(self.device))
        return [float(value) for value in (answer.image_embeds * answer.text_embeds).sum(-1)]
