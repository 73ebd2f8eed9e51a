"""The preset `paper` against what the authors publish, field by field; every difference is in docs/paper_published.md.

Published values are facts from the repository shinying/dmp at 69b4b18 and from the paper.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import nn

from dmp_core.config import load_config
from dmp_core.diffusion import Schedule, add_lora, lora_parameters
from dmp_core.evaluation.colours import DMP_CLASSES
from dmp_core.modalities import find_modality
from dmp_core.prompts.settings import PAPER_TEMPLATE, caption_bounds
from dmp_core.training.optimisation import learning_rate, make_optimizer
from tests.golden.tiny_sd import build_parts

DOCUMENT = Path(__file__).parents[2] / "docs" / "paper_published.md"


@dataclass(frozen=True)
class Field:
    """One published value, and the setting of ours that is about it."""

    path: str
    published: Any
    source: str
    departure: str = ""
    """Start of its row in the document's table, if ours is another value."""

    @property
    def ours(self) -> Any:
        found: Any = load_config("paper")
        for part in self.path.split("."):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        return found


FIELDS = [
    # ------------------------------------------------------------------------------------- data
    Field("splits.train.count", 10_000, "paper, 4.1"),
    Field("splits.in_domain.count", 2_000, "paper, 4.1"),
    Field("splits.out_of_domain.count", 2_000, "paper, 4.1"),
    Field("splits.train.keywords", ["bedroom"], "paper, 4.1"),
    Field("seed", None, "gencap.py, txt2img.py: one seed for all", "one global seed for captions and images"),
    # --------------------------------------------------------------------------------- captions
    Field("prompts.template", PAPER_TEMPLATE, "gencap.py"),
    Field("prompts.generator.model", "bigscience/bloomz-7b1", "gencap.py"),
    Field("prompts.generator.dtype", "float16", "gencap.py"),
    Field("prompts.generator.temperature", 0.95, "gencap.py"),
    Field("prompts.generator.eta_cutoff", 1e-5, "gencap.py"),
    Field("prompts.generator.top_k", 50, "gencap.py: the default of `generate` in transformers 4.31"),
    Field("prompts.generator.min_length", 15, "gencap.py: counts the request"),
    Field("prompts.generator.max_length", 128, "gencap.py: counts the request"),
    Field("prompts.generator.min_new_tokens", 0, "gencap.py: not given"),
    Field("prompts.generator.kind", "transformers", "gencap.py", "captions: `eta_cutoff` 1e-5 in every draw"),
    Field("prompts.max_characters", None, "gencap.py: not cut", "captions: the whole completion"),
    # ----------------------------------------------------------------------------------- images
    Field("images.model", "CompVis/stable-diffusion-v1-4", "txt2img.py"),
    Field("images.resolution", 512, "txt2img.py"),
    Field("images.scheduler", "ddim", "txt2img.py: unless --plms"),
    Field("images.num_inference_steps", 50, "txt2img.py"),
    Field("images.guidance_scale", 7.5, "txt2img.py"),
    Field("images.negative_prompt", None, "txt2img.py: the empty prompt"),
    Field("images.dtype", "float16", "txt2img.py: autocast on CUDA"),
    Field("images.float32_latents", True, "txt2img.py: latents and DDIM outside of autocast"),
    Field("images.safety_checker", False, "txt2img.py: has none", "images: no safety checker"),
    Field("images.patience", 0, "txt2img.py: each image is made once"),
    Field("quality.min_std", None, "no such step", "every sample is used"),
    # ----------------------------------------------------------------------------------- labels
    Field("labels.normal.kind", "omnidata", "getnorm.py; paper, 4.1"),
    Field("labels.depth.kind", "zoedepth", "getdepth.py"),
    Field("labels.depth.weights", "zoedepth-nyu", "getdepth.py: ZoeD_N"),
    Field("labels.depth.options", {"pad": True, "flip": True}, "getdepth.py: `infer` pads and flips"),
    Field("labels.segmentation.weights", "eva02-ade20k", "README: eva02_L_ade_seg_upernet_sz512"),
    Field("labels.albedo.weights", "pienet", "getintr.py"),
    Field("labels.shading.weights", "pienet", "getintr.py"),
    Field("labels.albedo.batch_size", 2, "getintr.py"),
    # ----------------------------------------------------------------------------- label images
    Field("latents.depth_scale", 8.0, "README: --target_scale=8"),
    Field("latents.depth_curve", "linear", "data.py"),
    Field("latents.depth_clip", False, "data.py, pipeline.py: no upper bound"),
    Field("latents.palette", "dmp2", "README: cls2color.py --pal 2"),
    Field("latents.colour_space", "lab8", "color2cls.py: OpenCV's 8-bit Lab"),
    Field("latents.decoded_classes", "paper", "color2cls.py --filter: 29 classes, others black"),
    Field("latents.min_class_share", 0.0, "color2cls.py: no such rule"),
    Field("latents.resolution", None, "data.py: images of 512 as they are"),
    Field("latents.flip", False, "README: --random_flip for four modalities", "training: normals are not flipped"),
    # --------------------------------------------------------------------------------- training
    Field("base.model", "CompVis/stable-diffusion-v1-4", "config.yaml, train.py"),
    Field("train.method", "dmp", "train.py"),
    Field("train.weights", "lora", "pipeline.py"),
    Field("train.lora.rank", 4, "pipeline.py"),
    Field("train.lora.alpha", None, "diffusers 0.20: a scale of 1"),
    Field("train.lora.targets", "attention", "pipeline.py: q, k, v, out of both attentions"),
    Field("train.prediction", "v", "README: --prediction_type=v_prediction"),
    Field("train.loss", "latents", "pipeline.py"),
    Field("train.num_timesteps", None, "pipeline.py: uniform over all 1000"),
    Field("train.steps", 50_000, "README: --max_train_steps"),
    Field("train.batch_size", 8, "README: --train_batch_size, per device"),
    Field("train.gradient_accumulation", 1, "train.py"),
    Field("train.learning_rate", 1e-4, "README"),
    Field("train.lr_schedule", "cosine", "README"),
    Field("train.warmup_steps", 0, "README"),
    Field("train.weight_decay", 1e-2, "train.py"),
    Field("train.max_grad_norm", 1.0, "train.py"),
    Field("train.mixed_precision", "fp16", "README: accelerate launch --mixed_precision"),
    Field("train.use_prompt", True, "README, Checkpoints: trained with images, prompts and pseudo ground truths"),
    # ------------------------------------------------------------------------------- prediction
    Field("sampling.num_steps", 5, "config.yaml: target_inference_steps"),
    Field("sampling.guidance_scale", 2.0, "config.yaml: target_guidance_scale"),
    Field("sampling.use_prompt", True, "infer.py: unless --disable-prompts"),
    Field("sampling.source", "oracle", "paper, eq. 4; README: --use-oracle-ddim"),
    Field("evaluate.sources", ["estimated"], "README: the paper's results are of the original DDIM"),
    Field("sampling.spacing", None, "ddim.py: as trained"),
    Field("sampling.mirrored", False, "infer.py: no such pass"),
    Field("sampling.decoder", None, "pipeline.py: the VAE decodes"),
    Field("sampling.colour_noise", None, "color2cls.py: the nearest colour"),
    Field("sampling.dtype", "float16", "infer.py"),
    Field("train.schedule.spacing", "leading", "ddim.py"),
    Field("train.schedule.zero_terminal_snr", False, "ddim.py"),
    Field("train.schedule.set_alpha_to_one", False, "Stable Diffusion 1.4's scheduler: the last step lands on ᾱ_0"),
]

OF_THE_CODE = [
    "albedo and shading: batches of 2",
    "captions: the keyword as it is",
    "images: float32 weights under float16 autocast",
    "normals: codes as the network gives them",
    "normals: the script's network",
    "depth: ZoeD_N from torch.hub",
    "segmentation: ids are read back",
    "training: 8 images per device",
    "training: images and labels are encoded again",
    "training and prediction: the VAE's posterior is sampled",
    "prediction: normals' codes are cut",
    "prediction: photographs are captioned by BLIP-2",
]
"""Rows of the document that no setting is about."""


def departures() -> list[str]:
    """First cells of the document's table."""
    section = DOCUMENT.read_text().partition("## Where the preset departs")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    return rows[1:]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_every_field_is_as_published_or_a_listed_departure(field: Field) -> None:
    if not field.departure:
        assert field.ours == field.published, field.source
        return
    assert field.ours != field.published, f"{field.path} no longer departs; remove its row from {DOCUMENT.name}"
    assert [row for row in departures() if row.startswith(field.departure)], field.departure


def test_every_listed_departure_is_one() -> None:
    known = [field.departure for field in FIELDS if field.departure] + OF_THE_CODE
    rows = departures()
    assert len(rows) > 10
    assert [row for row in rows if not any(row.startswith(start) for start in known)] == []
    assert [start for start in known if not any(row.startswith(start) for row in rows)] == []


def test_no_setting_that_could_depart_is_left_out() -> None:
    """Whoever adds a setting to these sections states what the authors have."""
    technical = {
        "images": {"kind", "revision"},
        "train": {
            "samples",
            "init",
            "checkpoint_every",
            "log_every",
            "seed",
            "colour_error",
            "class_balance",
            "processes",
            "nodes",
            "trackers",
            "tf32",
            "compile",
        },
        "latents": {"batch_size", "resolutions"},
        "sampling": {"batch_size", "compile"},
    }
    stated = {field.path for field in FIELDS}
    config = load_config("paper")
    for section, free in technical.items():
        for name in type(getattr(config, section)).model_fields.keys() - free:
            assert any(path.startswith(f"{section}.{name}") for path in stated), f"{section}.{name}"
    generator = type(config.prompts.generator).model_fields.keys()
    free = {"revision", "server_url", "fallback", "gpu_memory_utilization", "max_model_len", "max_new_tokens"}
    assert {f"prompts.generator.{name}" for name in generator - free} <= stated


def test_captions_have_the_published_room() -> None:
    """50 tokens of request leave 78; 15 in all ask for none. Whether `max_new_tokens` bounds them is our own affair."""
    assert caption_bounds(load_config("paper").prompts.generator, 50) == (0, 78)


def test_the_request_is_the_published_one() -> None:
    words = "caption photo adjectives colors styles lighting materials English longer 150 characters Caption:"
    assert all(word in PAPER_TEMPLATE for word in words.split())
    assert re.fullmatch(r"Provide a caption for a photo of a \{keyword\}\..* Caption:", PAPER_TEMPLATE)


def test_the_optimiser_is_the_published_one() -> None:
    train = load_config("paper").train
    group = make_optimizer(train, [nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 1e-2)
    rates = [learning_rate(train, step) for step in (0, 25_000, 49_999)]
    assert rates[:2] == pytest.approx([1e-4, 5e-5])
    assert rates[2] == pytest.approx(0.5e-4 * (1 + math.cos(math.pi * 49_999 / 50_000)))


def test_lora_starts_as_published() -> None:
    """Gaussian of standard deviation 1 / rank down, zero up: the output is that of the base model."""
    lora = load_config("paper").train.lora
    unet = add_lora(build_parts()["unet"], lora.rank, lora.alpha, lora.targets, seed=0)
    downs = torch.cat([p.flatten() for name, p in lora_parameters(unet) if "lora_A" in name])
    ups = [p for name, p in lora_parameters(unet) if "lora_B" in name]
    assert downs.std().item() == pytest.approx(1 / 4, rel=0.02)
    assert all(not p.any() for p in ups)
    assert unet.peft_config["default"].lora_alpha == lora.rank


def test_five_steps_visit_the_published_timesteps() -> None:
    """As diffusers' own DDIM with the scheduler's configuration of Stable Diffusion 1.4."""
    published = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False,
        "steps_offset": 1, "clip_sample": False,
    }  # fmt: skip
    ddim = DDIMScheduler(**published)
    ddim.set_timesteps(5)
    config = load_config("paper")
    schedule = Schedule.from_config(DDPMScheduler.from_config(ddim.config).config, **config.train.schedule.model_dump())
    assert schedule.timesteps(config.sampling.num_steps).tolist() == ddim.timesteps.tolist() == [801, 601, 401, 201, 1]
    torch.testing.assert_close(schedule.alphas_cumprod.float(), ddim.alphas_cumprod)
    assert schedule.final_alpha.item() == pytest.approx(ddim.final_alpha_cumprod.item())


def test_depth_and_classes_are_decoded_as_published() -> None:
    code = load_config("paper").latents.code
    values = torch.tensor([-1.5, 0.0, 1.0, 2.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    depth = find_modality("depth").from_image(values, code)
    assert depth.ravel().tolist() == pytest.approx([0, 4, 8, 12])  # clamped below and not above
    image = find_modality("depth").to_image(depth[:, 1:], code)
    assert image[0, 0].ravel().tolist() == pytest.approx([1, 2])
    colours = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = find_modality("segmentation").from_image(colours, code)
    assert {*found.ravel().tolist()} <= {*DMP_CLASSES, 1}  # 1: the first of the black ones


def test_the_practical_preset_only_leaves_the_captions_out() -> None:
    paper, practical = (load_config(name).model_dump(mode="json") for name in ("paper", "paper-practical"))
    assert practical["train"]["use_prompt"] is practical["sampling"]["use_prompt"] is False
    assert practical["sampling"]["guidance_scale"] == 1
    practical["train"]["use_prompt"] = practical["sampling"]["use_prompt"] = True
    practical["sampling"]["guidance_scale"], practical["preset"] = 2.0, "paper"
    assert practical == paper


def test_both_samplers_are_explained_with_the_authors_sentence() -> None:
    assert "> The results in the paper were generated by the original DDIM." in DOCUMENT.read_text()
