"""What the mini prior costs a training step, as shipped and at 128² with latents of 16 × 16 × 4.

    python -m benchmarks.prior_cost [--batch 8] [--repeats 2]

CPU time on one thread, so that a busy machine disturbs it little; two free cores need somewhat over half of it.
The table is the one in docs/mini_prior.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import typer

from dmp_core.models.prior import PriorConfig, load_recipe
from dmp_core.models.prior.loop import parameter_count
from dmp_core.models.prior.unet import build_unet
from dmp_core.models.prior.vae import build_vae

VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "128², VAE (32, 64, 64, 64), U-Net (96, 192)": {
        "resolution": 128,
        "vae": {"block_out_channels": [32, 64, 64, 64], "latent_channels": 4},
        "unet": {"block_out_channels": [96, 192]},
    },
}


def variant(recipe: PriorConfig, changes: dict[str, Any]) -> PriorConfig:
    """The recipe with another resolution and other networks."""
    settings = recipe.model_dump()
    settings["scenes"]["resolution"] = changes.get("resolution", recipe.scenes.resolution)
    for part in ("vae", "unet"):
        settings[part] |= changes.get(part, {})
    return PriorConfig.model_validate(settings)


def milliseconds(step: Callable[[], Any], batch: int, repeats: int) -> float:
    """CPU milliseconds an image; the first call warms up and does not count."""
    step()
    start = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - start) / (repeats * batch) * 1e3


def measure(config: PriorConfig, batch: int, repeats: int) -> dict[str, float]:
    """Million parameters, and CPU milliseconds an image, of the VAE and the U-Net of one recipe."""
    vae, unet = build_vae(config), build_unet(config)
    side, latent = config.scenes.resolution, config.latent_size
    images = torch.randn(batch, 3, side, side)
    latents = torch.randn(batch, config.vae.latent_channels, latent, latent)
    text = torch.randn(batch, config.unet.text.max_length, config.unet.text.hidden_size)
    timesteps = torch.randint(1000, (batch,))

    def vae_step() -> None:
        (vae(images).sample - images).abs().mean().backward()

    def unet_step() -> None:
        unet(latents, timesteps, encoder_hidden_states=text).sample.square().mean().backward()

    timed = {
        "VAE step": vae_step,
        "VAE encode": torch.no_grad()(lambda: vae.encode(images)),
        "VAE decode": torch.no_grad()(lambda: vae.decode(latents)),
        "U-Net step": unet_step,
        "U-Net forward": torch.no_grad()(lambda: unet(latents, timesteps, encoder_hidden_states=text)),
    }
    sizes = {f"{name} M": parameter_count([m]) / 1e6 for name, m in (("VAE", vae), ("U-Net", unet))}
    return sizes | {name: milliseconds(step, batch, repeats) for name, step in timed.items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: a row a variant."""
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def main(batch: int = 8, repeats: int = 2) -> None:
    torch.set_num_threads(1)
    recipe = load_recipe()
    rows = {name: measure(variant(recipe, changes), batch, repeats) for name, changes in VARIANTS.items()}
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    typer.run(main)
