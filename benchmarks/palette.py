"""Robustness of colour codes to the VAE: classes are coloured, encoded, decoded, and read again.

    .venv/bin/python -m benchmarks.palette [--model shipped:mini] [--write]

Each of the 150 classes fills half an image, next to another class. --write puts the table into docs/metrics.md.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import numpy as np
import typer

from dmp_core.diffusion.labels import vae_ceiling
from dmp_core.evaluation.colours import load_palette
from dmp_core.modalities import Code
from dmp_core.weights.load import load_vae
from dmp_core.weights.settings import BaseConfig
from docs.writing.documents import fill

PALETTES = ("default", "dmp2", "ade20k")


def pairs(side: int, partner: int) -> np.ndarray:
    """Class maps (150, side, side): class k on the left, class k + `partner` on the right."""
    classes = np.arange(150, dtype=np.uint8)
    maps = np.repeat(np.repeat(classes[:, None, None], side, 1), side, 2)
    maps[:, :, side // 2 :] = ((classes.astype(int) + partner) % 150)[:, None, None]
    return maps


def survivors(vae: Any, palette: str, side: int) -> tuple[int, float]:
    """(classes mostly read correctly, share of all pixels read correctly), over three neighbouring classes."""
    right = np.zeros((150, side, side // 2))
    for partner in (1, 40, 77):
        true = pairs(side, partner)
        batches = np.split(true, 10)
        read = np.concatenate([vae_ceiling(vae, b, "segmentation", code=Code(palette=palette)) for b in batches])
        right += (read == true)[:, :, : side // 2] / 3
    share = right.mean(axis=(1, 2))
    return int((share > 0.5).sum()), float(share.mean())


def separation(palette: str) -> float:
    """Smallest distance between two colours, in levels of 255."""
    colours = load_palette(palette).colours.astype(float)
    gaps = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 999 * np.eye(len(colours))
    return float(gaps.min())


def main(
    model: Annotated[str, typer.Option(help="Model whose VAE is used.")] = "shipped:mini",
    side: Annotated[int, typer.Option(help="Pixels of an image's side.")] = 64,
    write: Annotated[bool, typer.Option(help="Also put the table into docs/metrics.md.")] = False,
) -> None:
    vae = load_vae(BaseConfig(model=model), "cpu")
    lines = ["| palette | smallest distance | classes read right | pixels read right |", "|---|---|---|---|"]
    for palette in PALETTES:
        classes, pixels = survivors(vae, palette, side)
        lines.append(f"| `{palette}` | {separation(palette):.0f} | {classes} of 150 | {pixels:.1%} |")
    table = "\n".join(lines) + "\n"
    sys.stdout.write(table)
    if write:
        fill("docs/metrics.md", "palette", table)


if __name__ == "__main__":
    typer.run(main)
