"""Tiny Stable Diffusion folders, each of the kind of one published base: what differs between them is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.golden.fill import fill_module
from tests.training.tiny import TEXT_LENGTH, write_tokenizer


class Kind(NamedTuple):
    scheduler: str
    prediction: str
    sample_size: int
    """As published: 64 or 96 latents, of 8 pixels each there and of 4 here."""
    text_width: int
    linear: bool
    """The attention blocks' projections are linear layers, and their heads grow with the level."""
    act: str
    """Of CLIP (quick_gelu) or OpenCLIP (gelu)."""
    pad: int


KINDS = {
    "sd15": Kind("PNDMScheduler", "epsilon", 64, 16, False, "quick_gelu", -1),
    "sd21-base": Kind("PNDMScheduler", "epsilon", 64, 24, True, "gelu", 0),
    "sd21": Kind("DDIMScheduler", "v_prediction", 96, 24, True, "gelu", 0),
}


def write_kind(folder: Path, name: str) -> Path:
    """A folder in diffusers' format; random weights drawn by name."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    kind = KINDS[name]
    size = write_tokenizer(folder / "raw_tokenizer")
    files = [str(folder / "raw_tokenizer" / file) for file in ("vocab.json", "merges.txt")]
    pad = {} if kind.pad < 0 else {"pad_token": "!"}
    unet = diffusers.UNet2DConditionModel(
        sample_size=kind.sample_size,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=kind.text_width,
        attention_head_dim=(2, 4) if kind.linear else 2,
        use_linear_projection=kind.linear,
        upcast_attention=kind.prediction == "v_prediction",
        norm_num_groups=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8), norm_num_groups=4, scaling_factor=0.18215, sample_size=kind.sample_size * 4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=size, hidden_size=kind.text_width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        hidden_act=kind.act, max_position_embeddings=TEXT_LENGTH, bos_token_id=size - 2, eos_token_id=size - 1,
        pad_token_id=size - 1 if kind.pad < 0 else kind.pad,
    )  # fmt: skip
    betas: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    betas |= {"skip_prk_steps": True} if kind.scheduler == "PNDMScheduler" else {}
    parts = {
        "unet": fill_module(unet),
        "vae": fill_module(vae),
        "text_encoder": fill_module(CLIPTextModel(text)),
        "tokenizer": CLIPTokenizer(*files, model_max_length=TEXT_LENGTH, **pad),
        "scheduler": getattr(diffusers, kind.scheduler)(
            **betas, steps_offset=1, set_alpha_to_one=False, prediction_type=kind.prediction
        ),
    }
    for part, each in parts.items():
        each.save_pretrained(folder / part)
    index = {part: [type(each).__module__.partition(".")[0], type(each).__name__] for part, each in parts.items()}
    index |= {part: [None, None] for part in ("safety_checker", "feature_extractor")}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **index}))
    return folder
