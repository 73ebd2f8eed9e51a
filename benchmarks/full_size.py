"""Folders and files in the formats of the published checkpoints, at full size and with random weights.

For the dress rehearsal (`benchmarks.rehearsal`): same architectures, same names of weights, same file formats; only
the values are random. Each builder writes one model and frees its memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dmp_core.resources import manifest_path
from dmp_core.settings import read_yaml
from dmp_core.store import sha256_file
from dmp_core.weights.registry import Model, Registry

_VIT_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
}
"""CLIP ViT-L/14's image side."""
_WEIGHTS = (".safetensors", ".ckpt", ".pth", ".t7")


def autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=512,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )


def unet(in_channels: int = 4) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, in_channels=in_channels, cross_attention_dim=768, attention_head_dim=8)


def text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    return CLIPTextModel(text)


def safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    return StableDiffusionSafetyChecker(CLIPConfig(vision_config=_VIT_L, projection_dim=768))


def stable_diffusion(folder: Path) -> Path:
    """Stable Diffusion v1-4 with its safety checker (1.4 billion weights). The vocabulary is the mini prior's, since
    the real one is a download: token ids stay below CLIP's 49,408."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPImageProcessor, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(manifest_path("priors", "mini") / "tokenizer"), model_max_length=77)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer,
        unet=unet(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=safety_checker(),
        feature_extractor=CLIPImageProcessor(),
    )
    pipeline.save_pretrained(folder)
    return folder


def instruct_pix2pix(folder: Path) -> Path:
    """InstructPix2Pix from that Stable Diffusion, which must exist: its autoencoder, and a U-Net of eight channels
    (860 million weights) with the published sampler."""
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionInstructPix2PixPipeline,
    )
    from transformers import CLIPTextModel, CLIPTokenizer

    base = folder.parent / "stable-diffusion-v1-4"
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=AutoencoderKL.from_pretrained(base / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        unet=unet(in_channels=8),
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """CLIP ViT-L/14 (428 million weights) with its image processor; the vocabulary is the mini prior's."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    CLIPModel(CLIPConfig(text_config=text, vision_config=_VIT_L, projection_dim=768)).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    CLIPTokenizer.from_pretrained(str(manifest_path("priors", "mini") / "tokenizer")).save_pretrained(folder)
    return folder


def zoedepth(folder: Path) -> Path:
    """ZoeDepth with its BEiT-L backbone and the indoor head (345 million weights)."""
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

    ZoeDepthForDepthEstimation(ZoeDepthConfig()).save_pretrained(folder)
    size = {"height": 384, "width": 512}
    ZoeDepthImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=32).save_pretrained(folder)
    return folder


def omnidata(folder: Path) -> Path:
    """The DPT of Omnidata v2, in its training's format (123 million weights)."""
    from dmp_core.labelers.omnidata import VARIANTS, network

    variant = VARIANTS["v2"]
    state = {f"{variant.prefix}{name}": tensor for name, tensor in network("v2").state_dict().items()}
    return _saved({"epoch": 0, "state_dict": state}, folder / variant.file)


def eva02(folder: Path) -> Path:
    """EVA-02-L with UperNet, including rotary tables and auxiliary head (in mmsegmentation's format)."""
    from dmp_core.labelers.eva02 import CHECKPOINT, Eva02Config, Eva02Segmenter, from_timm, rotary_tables

    config = Eva02Config()
    network = Eva02Segmenter(config, auxiliary=True)
    state = {from_timm(name): tensor for name, tensor in network.state_dict().items()}
    places = ["backbone.rope", *(f"backbone.blocks.{number}.attn.rope" for number in range(config.depth))]
    state |= {f"{place}.{name}": table.clone() for place in places for name, table in rotary_tables(network).items()}
    return _saved({"meta": {"iter": 0}, "state_dict": state}, folder / f"{CHECKPOINT}.pth")


def pienet(folder: Path) -> Path:
    """PIE-Net, in its authors' format."""
    from dmp_core.labelers.pienet import PIENet

    return _saved({"iters": 0, "model": PIENet().state_dict(), "optimizer": {}}, folder / "real_world_model.t7")


def bloom(folder: Path, width: int = 512, layers: int = 6) -> Path:
    """BLOOM's architecture, small, with words as tokens: its random texts pass as captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<pad>"]
    # Few words, drawn about evenly by random weights: a sentence must end within 150 characters.
    words = ["a", "bed", "with", "red", "lamp", "and", "oak", "desk", "in", "soft", "light"]
    vocabulary = {word: number for number, word in enumerate([*special, *words, "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    BloomForCausalLM(
        BloomConfig(vocab_size=len(vocabulary), hidden_size=width, n_layer=layers, n_head=8, initializer_range=0.002)
    ).save_pretrained(folder)
    return folder


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "stable-diffusion-v1-4": stable_diffusion,
    "zoedepth-nyu": zoedepth,
    "omnidata-normal-v2": omnidata,
    "eva02-ade20k": eva02,
    "pienet": pienet,
    "bloomz-7b1": bloom,
}
"""By the registry's id."""


FOR_METHODS: dict[str, Callable[[Path], Path]] = {
    "instruct-pix2pix": instruct_pix2pix,
    "clip-vit-large-patch14": clip,
}
"""Additional models of the compared methods."""


def build(name: str, root: Path) -> Path:
    """The model's folder under `root`, built unless it is complete."""
    folder, done = root / name, root / f"{name}.built"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        with torch.no_grad():
            (BUILDERS | FOR_METHODS)[name](folder)
        done.touch()
    return folder


def write_registry(mirror: Path, file: Path) -> dict[str, Any]:
    """A registry of your own (`DMP_MODELS_REGISTRY`) for the models in a mirror: the package's entries, with these
    files and their digests. Returns it."""
    known = {model.id: model for model in Registry.model_validate(read_yaml(manifest_path("models.yaml"))).models}
    folders = sorted(path for path in mirror.iterdir() if path.is_dir())
    models = [_entry(known[folder.name], folder) for folder in folders]
    registry = {"name": "rehearsal", "models": models}
    file.write_text(yaml.safe_dump(registry, sort_keys=False))
    return registry


def _entry(model: Model, folder: Path) -> dict[str, Any]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [
        {"path": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in paths
    ]
    size = sum(path.stat().st_size for path in paths) / 1e9
    own = {"page": model.address, "manual": model.hub is None, "approximate_gb": size, "files": files}
    return model.model_dump(mode="json", exclude={"registry"}) | own


def _saved(value: dict[str, object], path: Path) -> Path:
    torch.save(value, path)
    return path


def weights_of(folder: Path) -> tuple[int, int]:
    """(weights, bytes) in a model's files."""
    from safetensors import safe_open

    count = size = 0
    for file in (path for path in folder.rglob("*") if path.suffix in _WEIGHTS):
        size += file.stat().st_size
        if file.suffix != ".safetensors":
            count += _count(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
            continue
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (a file, not a dict)
                count += torch.Size(tensors.get_slice(name).get_shape()).numel()
    return count, size


def _count(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    return sum(map(_count, value.values())) if isinstance(value, dict) else 0
