"""The tiny Stable Diffusion of the golden vectors: the published layout, weights drawn by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tests.golden.fill import fill_module, fill_value
from tests.golden.vectors import FOLDER

CONFIGS = FOLDER / "tiny_sd"


def build_parts() -> dict[str, Any]:
    """unet, vae, text_encoder, tokenizer, scheduler; models in evaluation mode."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(CONFIGS / "unet"))
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(CONFIGS / "vae"))
    text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(CONFIGS / "text_encoder"))
    # The published keys carry a prefix that transformers 5 dropped.
    fill_module(text_encoder, rename=lambda key: "text_model." + key.removeprefix("text_model."))
    return {
        "unet": fill_module(unet).eval(),
        "vae": fill_module(vae).eval(),
        "text_encoder": text_encoder.eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(CONFIGS / "tokenizer"),
        "scheduler": PNDMScheduler.from_pretrained(CONFIGS / "scheduler"),
    }


def write_base(folder: Path) -> Path:
    """The model as a folder that ``StableDiffusionPipeline.from_pretrained`` opens."""
    for name, part in build_parts().items():
        part.save_pretrained(folder / name)
    index = json.loads((CONFIGS / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_published_lora(file: Path, shapes: dict[str, list[int]]) -> Path:
    """A LoRA file under the published names, weights drawn by name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: fill_value(key, tuple(shape)) for key, shape in shapes.items()}, file)
    return file
