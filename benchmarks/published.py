"""Training, prediction and the stages of a dataset beside the published way of doing them.

    .venv/bin/python -m benchmarks.published [--pairs 5] [--samples 1000] [--write]

The published script encodes image and label in every training step, predicts one image at a time, and runs the U-Net
twice for guidance, although there is no caption. Here latents are encoded once and read, prediction is batched, and
guidance of 1 costs nothing. CPU seconds of this process, one thread; medians over pairs, which take turns.

A dataset is made by the mini preset's stages, once as published, one image after another on one core, and once on all
cores, each in a process of its own. Seconds on the clock.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.growth import seconds_per_stage
from dmp_core.config import load_config
from dmp_core.diffusion.adapters import add_lora
from dmp_core.diffusion.latents import encode_images
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.training.settings import LoraConfig
from dmp_core.weights.load import load_base
from docs.writing.documents import ROOT, fill

STEPS = 5
"""Of a prediction, as in the paper."""
STAGES = ("images", "labels", "quality", "shards", "latents")


def prediction(base: Any, images: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Both ways to predict these images (B, 3, H, W) in [0, 1]."""

    def one(image: torch.Tensor, guidance: float) -> torch.Tensor:
        return base(image, prompt="", num_inference_steps=STEPS, guidance_scale=guidance).images

    return {
        "published": lambda: torch.cat([one(image[None], 2.0) for image in images]),
        "here": lambda: one(images, 1.0),
    }


def training(base: Any, images: torch.Tensor, lora: LoraConfig) -> dict[str, Callable[[], torch.Tensor]]:
    """A step's pass through the U-Net and its gradient, on these images as image and label; with encoding or not."""
    add_lora(base.unet, lora.rank, None, lora.targets, seed=0)
    parameters = [value for value in base.unet.parameters() if value.requires_grad]
    with torch.no_grad():
        latents = encode_images(base.vae, images)
        texts = base.encode_prompt([""]).expand(len(images), -1, -1)
    timesteps = torch.arange(len(images)) * 7

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = (base.unet(y, timesteps, texts).sample - x).square().mean()
        torch.autograd.grad(loss, parameters)
        return loss.detach()

    def published() -> torch.Tensor:
        with torch.no_grad():
            x, y = encode_images(base.vae, images), encode_images(base.vae, images)
        return step(x, y)

    return {"published": published, "here": lambda: step(latents, latents)}


def medians(ways: dict[str, Callable[[], torch.Tensor]], pairs: int) -> tuple[float, float, float]:
    """CPU seconds of the published way and of this one, and the median of the pairs' ratios."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(pairs + 1):  # the first one warms up
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if number:
                taken[name].append(time.process_time() - begun)
    ratio = statistics.median(a / b for a, b in zip(taken["published"], taken["here"], strict=True))
    return statistics.median(taken["published"]), statistics.median(taken["here"]), ratio


def measured(pairs: int, batch: int) -> list[str]:
    """The rows of the table."""
    config = load_config("mini")
    assert isinstance(config.train, TrainConfig)
    lora = config.train.lora
    base = load_base(config.base)
    base.set_progress_bar_config(disable=True)
    images = torch.from_numpy(np.random.default_rng(0).random((batch, 3, 64, 64), np.float32))
    rows = []
    for name, ways in (
        ("prediction", lambda: prediction(base, images)),
        ("training step", lambda: training(base, images, lora)),
    ):
        old, new, ratio = medians(ways(), pairs)
        rows.append(f"| {name}, ms per image | {1000 * old / batch:.1f} | {1000 * new / batch:.1f} | {ratio:.1f} |")
    return rows


def make_dataset(samples: int, folder: Path, one_by_one: bool) -> dict[str, float]:
    """Seconds per stage; prompts come from the grammar, test splits are as small as they can be."""
    chosen = [f"splits.train.count={samples}", "prompts.generator.kind=grammar"]
    chosen += [f"splits.{split}.count=1" for split in ("in_domain", "out_of_domain")]
    if one_by_one:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        torch.set_num_threads(1)
        chosen += ["runtime.workers=1", "latents.batch_size=1"]
    seconds = seconds_per_stage(load_config("mini", None, chosen), folder, ("prompts", *STAGES))
    return {stage: seconds[stage] for stage in STAGES}


def dataset(samples: int) -> list[str]:
    """The rows of the table."""
    taken = []
    for way in ("published", "here"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.published", "--samples", str(samples), "--folder", folder]
            command += ["--one-by-one"] if way == "published" else []
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            taken.append(json.loads(done.stdout.splitlines()[-1]))
    old, new = ({**seconds, "all": sum(seconds.values())} for seconds in taken)
    return [f"| {name}, s | {old[name]:.1f} | {new[name]:.1f} | {old[name] / new[name]:.1f} |" for name in old]


def main(
    pairs: int = 5,
    batch: Annotated[int, typer.Option(help="Images at a time; the published way predicts them one by one.")] = 16,
    samples: Annotated[int, typer.Option(help="Size of the dataset.")] = 1000,
    write: Annotated[bool, typer.Option(help="Write the tables into docs/performance.md.")] = False,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
    one_by_one: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    if folder is not None:
        typer.echo(json.dumps(make_dataset(samples, folder, one_by_one)))
        return
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    tables = {
        "published": _table("mini prior, one thread", measured(pairs, batch)),
        "dataset": _table(f"{samples:,} samples, five modalities, {cores} cores", dataset(samples)),
    }
    for name, text in tables.items():
        typer.echo(text)
        if write:
            fill("docs/performance.md", name, text)
    typer.echo(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")


def _table(what: str, rows: list[str]) -> str:
    head = [f"| {what} | published way | here | ratio |", "|---|---:|---:|---:|"]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    typer.run(main)
