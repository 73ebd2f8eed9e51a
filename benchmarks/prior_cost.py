"""Cost of training and using the mini prior.

    .venv/bin/python -m benchmarks.prior_cost [--batch 8] [--repeats 3] [--write]

First table: CPU time on one thread, as shipped and at 128² with latents of 16 × 16 × 4; a busy machine affects it
little. Second: wall time of the training loop's own steps, by precision and threads; needs idle cores.
--write puts both into docs/mini_prior.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from dmp_core.prior import PriorConfig, load_recipe
from dmp_core.prior.loop import Team, parameter_count
from dmp_core.prior.unet import build_unet
from dmp_core.prior.vae import build_vae
from docs.writing.documents import fill

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


def milliseconds(step: Callable[[], Any], batch: int, repeats: int, clock: Callable[[], float]) -> float:
    """Milliseconds per image, the fastest of `repeats`; the first call is a warm-up and not counted."""
    step()
    taken = []
    for _ in range(repeats):
        start = clock()
        step()
        taken.append(clock() - start)
    return min(taken) / batch * 1e3


class Parts:
    """VAE and U-Net of one recipe, with random inputs of a batch."""

    def __init__(self, config: PriorConfig, batch: int) -> None:
        self.vae, self.unet = build_vae(config), build_unet(config).to(memory_format=torch.channels_last)
        side, latent = config.scenes.resolution, config.latent_size
        self.images = torch.randn(batch, 3, side, side)
        self.latents = torch.randn(batch, config.vae.latent_channels, latent, latent)
        self.text = torch.randn(batch, config.unet.text.max_length, config.unet.text.hidden_size)
        self.timesteps = torch.randint(1000, (batch,))

    def denoised(self, share: slice = slice(None)) -> Tensor:
        text = self.text[share]
        out: Tensor = self.unet(self.latents[share], self.timesteps[share], encoder_hidden_states=text).sample
        return out

    def vae_loss(self, step: int, share: slice) -> dict[str, Tensor]:
        return {"loss": (self.vae(self.images[share]).sample - self.images[share]).abs().mean()}

    def unet_loss(self, step: int, share: slice) -> dict[str, Tensor]:
        return {"loss": self.denoised(share).float().square().mean()}


def sizes_and_costs(config: PriorConfig, batch: int, repeats: int) -> dict[str, float]:
    """Million parameters, and CPU milliseconds per image on one thread."""
    parts, whole = Parts(config, batch), slice(None)
    timed = {
        "VAE step": lambda: parts.vae_loss(0, whole)["loss"].backward(),
        "VAE encode": torch.no_grad()(lambda: parts.vae.encode(parts.images)),
        "VAE decode": torch.no_grad()(lambda: parts.vae.decode(parts.latents)),
        "U-Net step": lambda: parts.unet_loss(0, whole)["loss"].backward(),
        "U-Net forward": torch.no_grad()(parts.denoised),
    }
    sizes = {f"{name} M": parameter_count([m]) / 1e6 for name, m in (("VAE", parts.vae), ("U-Net", parts.unet))}
    return sizes | {name: milliseconds(step, batch, repeats, time.process_time) for name, step in timed.items()}


def loop_costs(config: PriorConfig, batch: int, repeats: int, bf16: bool, shares: bool) -> dict[str, float]:
    """Wall milliseconds per image of a forward and backward pass: by the loop's team, or by torch's own threads."""
    parts, costs = Parts(config, batch), {}
    for name, module, loss in (("VAE", parts.vae, parts.vae_loss), ("U-Net", parts.unet, parts.unet_loss)):
        with Team(loss, list(module.parameters()), bf16, config.workers if shares else 1) as team:
            if not shares:
                torch.set_num_threads(config.workers)
            costs[name] = milliseconds(partial(team.set_gradients, 0), batch, repeats, time.perf_counter)
    return costs


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: one row per variant."""
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def main(
    batch: int = 8,
    repeats: int = 3,
    write: Annotated[bool, typer.Option(help="Also put the tables into docs/mini_prior.md.")] = False,
) -> None:
    recipe = load_recipe()
    ways = {
        f"{'bfloat16' if bf16 else 'float32'}, {'a share a thread' if shares else 'threads within each kernel'}": (
            bf16,
            shares,
        )
        for bf16 in (False, True)
        for shares in (False, True)
    }
    loop = {name: loop_costs(recipe, 4 * batch, repeats, *way) for name, way in ways.items()}
    torch.set_num_threads(1)
    costs = {name: sizes_and_costs(variant(recipe, changes), batch, repeats) for name, changes in VARIANTS.items()}
    for name, rows in (("cost", costs), ("loop", loop)):
        sys.stdout.write(table(rows) + "\n")
        if write:
            fill("docs/mini_prior.md", name, table(rows))


if __name__ == "__main__":
    typer.run(main)
