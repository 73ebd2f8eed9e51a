"""A CLIP model of a few thousand parameters, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.training.tiny import TEXT_LENGTH, write_tokenizer


def write_clip(folder: Path, text_width: int) -> Path:
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTextConfig,
        CLIPTokenizer,
        CLIPVisionConfig,
    )

    size = write_tokenizer(folder / "raw")
    tokenizer = CLIPTokenizer(
        str(folder / "raw" / "vocab.json"), str(folder / "raw" / "merges.txt"), model_max_length=TEXT_LENGTH
    )
    common = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(hidden_size=text_width, vocab_size=size, **common).to_dict(),
            vision_config=CLIPVisionConfig(hidden_size=16, image_size=32, patch_size=8, **common).to_dict(),
            projection_dim=8,
        )
    )
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder
