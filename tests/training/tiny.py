"""A Stable-Diffusion-shaped model of a few thousand parameters, random but always the same, as a folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.golden.fill import fill_module

TEXT_WIDTH, TEXT_LENGTH = 16, 12
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def write_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer of single characters, without merges; returns the size of its vocabulary."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *SPECIAL]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return len(vocabulary)


def write_base(folder: Path, latent_channels: int = 4) -> Path:
    """A model folder in diffusers format: images of 16 pixels, latents of 4 x 4.

    Weights are drawn by name, so that recorded losses do not depend on the libraries' initialisation.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    size = write_tokenizer(folder / "raw_tokenizer")
    tokenizer = CLIPTokenizer(
        str(folder / "raw_tokenizer" / "vocab.json"),
        str(folder / "raw_tokenizer" / "merges.txt"),
        model_max_length=TEXT_LENGTH,
    )
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        sample_size=16,
        scaling_factor=0.5,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
            pad_token_id=size - 1,
        )
    )
    for part in (unet, vae, text_encoder):
        fill_module(part)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    )
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {name: [_library(part), type(part).__name__] for name, part in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **index}))
    return folder


def _library(part: object) -> str:
    return type(part).__module__.partition(".")[0]
