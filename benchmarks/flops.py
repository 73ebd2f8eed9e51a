"""Floating-point operations at paper scale, beside the published way, counted on tensors without content.

    .venv/bin/python -m benchmarks.flops [--write]

Stable Diffusion v1-4's networks at 512 x 512 pixels: a training step per sample, and a prediction per image. A
multiplication with an addition counts as two operations; matrix products, convolutions and attention are counted.
--write puts the table into docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size
from dmp_core.config import load_config
from dmp_core.diffusion import add_lora
from dmp_core.methods.dmp.settings import TrainConfig
from docs.writing.documents import fill

Counts = dict[str, float]
"""TFLOP by name."""


def tera(work: Callable[[], Any]) -> float:
    """TFLOP of a piece of work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e12


def parts() -> Counts:
    """Of each network, for one image; `step`: the U-Net forwards and backwards with the preset's low-rank layers."""
    with torch.device("meta"):
        vae, unet, small = full_size.autoencoder(), full_size.unet(), AutoencoderTiny()
        image, latents, text = torch.empty(1, 3, 512, 512), torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        time = torch.empty(1)
    found: Counts = {}
    with torch.no_grad():
        found["encode"] = tera(lambda: vae.encode(image).latent_dist.mode())
        found["decode"] = tera(lambda: vae.decode(latents).sample)
        found["small decode"] = tera(lambda: small.decode(latents).sample)
        found["unet"] = tera(lambda: unet(latents, time, encoder_hidden_states=text).sample)
    train = load_config("paper").train
    assert isinstance(train, TrainConfig)
    add_lora(unet, train.lora.rank, train.lora.alpha, train.lora.targets, seed=0)

    def step() -> None:
        output: Tensor = unet(latents, time, encoder_hidden_states=text).sample
        output.square().mean().backward()

    found["step"] = tera(step)
    return found


def training(part: Counts) -> Counts:
    """TFLOP per sample and step. Published: image and label are encoded in every step."""
    return {"published": part["step"] + 2 * part["encode"], "here": part["step"]}


def prediction(part: Counts, preset: str, decoder: str | None = None) -> float:
    """TFLOP per image with a preset's sampling.

    decoder: as in `sampling.decoder`, of the size of the published ones.
    """
    sampling = load_config(preset).sampling
    ways, decode = 2 if sampling.mirrored else 1, part["decode" if decoder is None else "small decode"]
    return ways * (part["encode"] + decode) + sampling.passes * part["unet"]


def published_prediction(part: Counts) -> float:
    """Five steps with guidance, in the published script's order."""
    return part["encode"] + 5 * 2 * part["unet"] + part["decode"]


def table(part: Counts) -> str:
    step = training(part)
    published = published_prediction(part)
    rows = [
        ("Training step, per sample", step["published"], step["here"]),
        *(
            (f"Prediction, per image, preset `{name}`", published, prediction(part, name))
            for name in ("paper", "paper-practical", "best")
        ),
        ("The same, preset `best` with `sampling.decoder=taesd`", published, prediction(part, "best", "taesd")),
    ]
    lines = ["| TFLOP | published way | here | ratio |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} |" for name, theirs, ours in rows]
    single = ", ".join(f"{name} {value:.2f}" for name, value in part.items())
    return "\n".join(lines) + f"\n\nOf one image or sample: {single} TFLOP.\n"


def main(write: Annotated[bool, typer.Option(help="Also put the table into docs/performance.md.")] = False) -> None:
    text = table(parts())
    typer.echo(text)
    if write:
        fill("docs/performance.md", "flops", text)


if __name__ == "__main__":
    typer.run(main)
