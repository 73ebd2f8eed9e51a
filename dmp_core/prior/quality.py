"""Quality measures of a finished prior: `quality.json`, the table of `quality.md.j2`, and an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmp_core.diffusion.labels import encode
from dmp_core.diffusion.latents import decode_latents
from dmp_core.errors import InputError
from dmp_core.images import image_to_vae
from dmp_core.prior.config import PriorConfig, QualityConfig
from dmp_core.prior.data import Renders, draw_scene, load_renders
from dmp_core.prior.distances import Features, frechet, nearest, nearness, perceptual, psnr, ssim
from dmp_core.prior.judge import Images, Judge, Labels, accuracies, embed, train_judge
from dmp_core.prior.pictures import grid
from dmp_core.prior.traits import TRAITS, majority_share, stack_traits, traits
from dmp_core.progress import Progress, silent


@dataclass(frozen=True)
class Row:
    """One measure of renders, of the same renders through the VAE, and of samples; None: does not apply."""

    renders: float | None
    through_vae: float | None
    samples: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Quality:
    """All measures of one prior."""

    training: int
    """Renders that the judge was trained on."""
    held_out: int
    """Renders on which the column of renders is measured."""
    samples: int
    psnr: Row
    """dB. For this and the next two, `renders` compares different renders, as a scale."""
    ssim: Row
    perceptual: Row
    obedience: dict[str, Row]
    """Share of images in which the judge recognises what the caption states, by trait."""
    frechet: Row
    """Distance to held-out renders, in the judge's features. `renders` and `through_vae`: as many training renders."""
    nearness: Row
    """Distance to the nearest training render, relative to held-out renders. `through_vae`: training renders,
    the score of samples that are copies."""


def measure_folder(config: PriorConfig, model: str, scenes_folder: Path, out: Path, progress: Progress = silent) -> str:
    """`measure` and `write_quality` for a folder or shipped:NAME. Raises InputError if it holds no pipeline."""
    from diffusers import StableDiffusionPipeline

    from dmp_core.weights.resolve import resolve_folder

    folder = resolve_folder(model, "priors") or Path(model)
    if not (folder / "model_index.json").exists():
        raise InputError(f"model: {folder} is not a diffusers folder (no model_index.json); give one, or shipped:mini")
    torch.set_num_threads(config.workers)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    return write_quality(*measure(config, pipeline, scenes_folder, progress), config.quality, out)


def measure(
    config: PriorConfig, pipeline: Any, scenes_folder: Path, progress: Progress = silent
) -> tuple[Quality, Image.Image]:
    """Train the judge, draw samples, compare; returns the measures and `neighbour_grid`'s image.

    pipeline: a StableDiffusionPipeline in float32. Raises InputError where sizes or scenes do not match the recipe.
    """
    training, held_out = (load_renders(config.scenes, scenes_folder, held) for held in (False, True))
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    if training.rgb.shape[1:3] != (side, side):
        raise InputError(
            f"scenes: {training.rgb.shape[1:3]} pixels, but the model paints {side}; give scenes of its size"
        )
    labels = labels_of(training.captions, training.keywords)
    judge = train_judge(config.quality.judge, training, labels, config.workers, progress)
    captions, keywords = sample_prompts(config, held_out)
    samples = draw_samples(pipeline, captions, config.quality, progress)
    return compare(judge, pipeline.vae, training, held_out, Renders(samples, captions, keywords))


def labels_of(captions: Sequence[str], keywords: Sequence[str]) -> Labels:
    """Traits that each caption states, (N,) by trait."""
    return stack_traits([traits(*words) for words in zip(captions, keywords, strict=True)])


def sample_prompts(config: PriorConfig, held_out: Renders) -> tuple[list[str], list[str]]:
    """Captions and keywords of scenes outside the training set: held-out ones, then those after the last scene."""
    first = config.scenes.scenes
    fresh = [draw_scene(config.scenes, index) for index in range(first, first + config.quality.samples)]
    captions = [*held_out.captions, *(caption for caption, _, _ in fresh)]
    keywords = [*held_out.keywords, *(keyword for _, keyword, _ in fresh)]
    return captions[: config.quality.samples], keywords[: config.quality.samples]


def draw_samples(
    pipeline: Any, captions: Sequence[str], config: QualityConfig, progress: Progress = silent, batch_size: int = 64
) -> Images:
    """One image per caption, each from its own seed."""
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(captions), batch_size):
        batch = list(captions[start : start + batch_size])
        seeds = range(start, start + len(batch))
        images = pipeline(
            batch,
            num_inference_steps=config.sampling_steps,
            guidance_scale=config.guidance_scale,
            generator=[torch.Generator().manual_seed(1_000_000 * config.seed + seed) for seed in seeds],
            output_type="np",
        ).images
        parts.append((images * 255).round().astype(np.uint8))
        progress(start + len(batch), len(captions), "samples drawn")
    return np.concatenate(parts)


@torch.no_grad()
def round_trip(vae: Any, images: Images, batch_size: int = 32) -> Images:
    """Images encoded and decoded."""
    parts = []
    for start in range(0, len(images), batch_size):
        pixels = image_to_vae(images[start : start + batch_size])
        decoded = decode_latents(vae, encode(vae, pixels, batch_size))
        parts.append((decoded.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def compare(
    judge: Judge, vae: Any, training: Renders, held_out: Renders, samples: Renders
) -> tuple[Quality, Image.Image]:
    """The measures of samples, given their prompts; and `neighbour_grid`'s image."""
    # As many training renders as samples, spread over the shards.
    chosen = np.linspace(0, len(training) - 1, min(len(samples), len(training))).astype(int)
    copies = round_trip(vae, training.rgb[chosen])
    decoded = round_trip(vae, held_out.rgb)
    known, new, painted, copied = (embed(judge, images) for images in (training.rgb, held_out.rgb, samples.rgb, copies))
    others = np.roll(held_out.rgb, 1, axis=0)
    quality = Quality(
        training=len(training),
        held_out=len(held_out),
        samples=len(samples),
        psnr=Row(psnr(held_out.rgb, others), psnr(held_out.rgb, decoded)),
        ssim=Row(ssim(held_out.rgb, others), ssim(held_out.rgb, decoded)),
        perceptual=Row(perceptual(judge, held_out.rgb, others), perceptual(judge, held_out.rgb, decoded)),
        obedience=_obedience(judge, held_out, decoded, samples),
        frechet=Row(frechet(known[chosen], new), frechet(copied, new), frechet(painted, new)),
        nearness=Row(1.0, nearness(copied, new, known), nearness(painted, new, known)),
    )
    return quality, neighbour_grid(samples.rgb, training.rgb, painted, known)


def _obedience(judge: Judge, held_out: Renders, decoded: Images, samples: Renders) -> dict[str, Row]:
    said, wanted = (labels_of(part.captions, part.keywords) for part in (held_out, samples))
    renders, through_vae = (accuracies(judge, images, said) for images in (held_out.rgb, decoded))
    obeyed, chance = accuracies(judge, samples.rgb, wanted), majority_share(wanted)
    return {name: Row(renders[name], through_vae[name], obeyed[name], chance[name]) for name in TRAITS}


def neighbour_grid(
    samples: Images, training: Images, painted: Features, known: Features, count: int = 6
) -> Image.Image:
    """The samples nearest to a training render, each followed by its three nearest; two blocks wide.

    painted, known: the features of samples and of training renders.
    """
    distances, indices = nearest(painted, known, min(3, len(known)))
    closest = np.argsort(distances[:, 0], kind="stable")[: min(count, len(samples)) // 2 * 2]
    rows = [np.concatenate([samples[[n]], training[indices[n]]]) for n in closest]
    return grid(np.concatenate(rows), 2 * len(rows[0]), enlarge=1)


def render_table(quality: Quality, config: QualityConfig) -> str:
    """The measures as Markdown, each with a sentence on how to read it."""
    import jinja2

    template = jinja2.Template(Path(__file__).with_name("quality.md.j2").read_text(), undefined=jinja2.StrictUndefined)
    return template.render(quality=quality, config=config)


def write_quality(quality: Quality, neighbours: Image.Image, config: QualityConfig, out: Path) -> str:
    """Write `quality.json`, `quality.md` and `neighbours.png` into `out`; returns the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    text = render_table(quality, config)
    (out / "quality.json").write_text(json.dumps(asdict(quality), indent=1) + "\n")
    (out / "quality.md").write_text(text)
    neighbours.save(out / "neighbours.png", optimize=True)
    return text
