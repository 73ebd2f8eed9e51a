"""The finished prior as a diffusers folder in fp16 safetensors, with a card that states its abilities and limits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

from dmp_core.finite import check_before_writing
from dmp_core.modalities import Code, find_modality
from dmp_core.prior.config import PriorConfig
from dmp_core.prior.data import Scenes, load_scenes
from dmp_core.prior.loop import parameter_count
from dmp_core.prior.pictures import grid
from dmp_core.prior.quality import measure, round_trip, write_quality
from dmp_core.prior.start import training_log
from dmp_core.progress import Progress, silent
from dmp_core.scoring.protocol import score

SAMPLE_PROMPTS = (
    "A cozy bedroom with a red bed and two white pillows",
    "A bedroom with a blue bed by a large window",
    "A modern kitchen with green cabinets and a stove",
    "A bright bathroom with a white bathtub",
    "An office with a wooden desk and a swivel chair",
    "A long corridor with a purple rug",
    "A library with brown bookcases",
    "A city street with tall buildings",
    "A beach with palm trees by the sea",
    "A park with green trees",
    "A pencil drawing of a bedroom",
    "A cyberpunk bedroom with neon lights",
)


def export_prior(
    config: PriorConfig,
    vae: Any,
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    work: Path,
    out: Path,
    progress: Progress = silent,
) -> None:
    """Write the folder that `StableDiffusionPipeline.from_pretrained` and DMP load; replaces `out` at the end."""
    fresh = out.with_name(f".{out.name}.new")
    stale = out.with_name(f".{out.name}.old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline = assemble(vae, unet, text_encoder, tokenizer)
    save_halved(pipeline, fresh)
    scenes = load_scenes(config.scenes, work / "scenes", held_out=True)
    shipped = type(pipeline).from_pretrained(fresh, torch_dtype=torch.float32)  # as users will load it
    sample_grid(shipped).save(fresh / "samples.png", optimize=True)
    reconstruction_grid(shipped.vae, scenes).save(fresh / "reconstructions.png", optimize=True)
    quality = write_quality(*measure(config, shipped, work / "scenes", progress), config.quality, fresh)
    logs = {part: training_log(config, work, part) for part in ("vae", "unet")}
    for part, log in logs.items():
        log.to_csv(fresh / f"{part}_log.csv", index=False)
    (fresh / "README.md").write_text(_card(config, shipped, scenes, logs, quality))
    if out.exists():
        out.rename(stale)
    fresh.rename(out)
    shutil.rmtree(stale, ignore_errors=True)


def save_halved(pipeline: Any, folder: Path) -> None:
    """Write a diffusers pipeline in half precision. Raises InputError when a weight is not finite in it."""
    pipeline.to(torch.float16)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            check_before_writing(part.state_dict(), f"{folder.name}/{name}")
    pipeline.save_pretrained(folder)
    forget_paths(folder)


def forget_paths(folder: Path) -> None:
    """Remove the local paths from which parts were loaded, which diffusers and transformers record."""
    for file in (*folder.rglob("*config.json"), folder / "model_index.json"):
        content = json.loads(file.read_text())
        kept = {name: value for name, value in content.items() if name not in ("_name_or_path", "name_or_path")}
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def assemble(vae: Any, unet: Any, text_encoder: Any, tokenizer: Any) -> Any:
    """The parts as a StableDiffusionPipeline with SD v1-4's noise schedule."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sample_grid(pipeline: Any, steps: int = 30, guidance_scale: float = 4.0) -> Image.Image:
    """One image for each of SAMPLE_PROMPTS, in rows of six."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(number) for number in range(len(SAMPLE_PROMPTS))]
    images = pipeline(
        list(SAMPLE_PROMPTS),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generators,
        output_type="np",
    ).images
    return grid((images * 255).round().astype(np.uint8), 6)


def reconstruction_grid(vae: Any, scenes: Scenes, count: int = 6) -> Image.Image:
    """Held-out renders above, their reconstructions below."""
    images = scenes.rgb[:count]
    return grid(np.concatenate([images, round_trip(vae, images)]), count)


def ceilings(vae: Any, scenes: Scenes, config: PriorConfig) -> dict[str, float]:
    """Per modality: the score of held-out labels after the VAE's round trip, in its primary metric."""
    from dmp_core.diffusion.labels import vae_ceiling

    code = Code(depth_scale=config.vae.depth_scale, palette=config.vae.palette)
    result: dict[str, float] = {}
    for modality in map(find_modality, config.vae.label_images):
        labels = modality.from_codes(scenes.labels[modality.name])
        decoded = vae_ceiling(vae, labels, modality, code=code)
        table = score(modality, decoded, labels, [str(n) for n in range(len(labels))])
        result[modality.name] = table.dataset[modality.primary_metric.name]
    return result


def _card(config: PriorConfig, pipeline: Any, scenes: Scenes, logs: dict[str, pd.DataFrame], quality: str) -> str:
    import jinja2

    template = jinja2.Template(Path(__file__).with_name("card.md.j2").read_text(), undefined=jinja2.StrictUndefined)
    limits = ceilings(pipeline.vae, scenes, config)
    return template.render(
        config=config,
        recipe=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=100),
        millions={name: parameter_count([getattr(pipeline, name)]) / 1e6 for name in ("vae", "unet", "text_encoder")},
        last={part: log.iloc[-1] for part, log in logs.items()},
        held_out=len(scenes),
        quality=quality,
        ceilings=[(name, find_modality(name).primary_metric, value) for name, value in limits.items()],
    )
