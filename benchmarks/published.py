"""Training and prediction of the mini prior beside the published way of doing them, in pairs.

    .venv/bin/python -m benchmarks.published [--pairs 5] [--write]

The published script encodes image and label in every training step, predicts one image at a time, and runs the U-Net
twice for guidance, although there is no caption. Here latents are encoded once and read, prediction is batched, and
guidance of 1 costs nothing. CPU seconds of this process, one thread; medians over pairs, which take turns.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import typer

from dmp_core.config import load_config
from dmp_core.diffusion.adapters import add_lora
from dmp_core.diffusion.latents import encode_images
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.training.settings import LoraConfig
from dmp_core.weights.load import load_base
from docs.writing.documents import fill

STEPS = 5
"""Of a prediction, as in the paper."""


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


def main(
    pairs: int = 5,
    batch: Annotated[int, typer.Option(help="Images at a time; the published way predicts them one by one.")] = 16,
    write: Annotated[bool, typer.Option(help="Write the table into docs/performance.md.")] = False,
) -> None:
    torch.set_num_threads(1)
    head = ["| mini prior, one thread | published way | here | ratio |", "|---|---:|---:|---:|"]
    text = "\n".join([*head, *measured(pairs, batch)]) + "\n"
    typer.echo(f"{text}\n{platform.processor() or platform.machine()}, torch {torch.__version__}")
    if write:
        fill("docs/performance.md", "published", text)


if __name__ == "__main__":
    typer.run(main)
