"""Cost of a step of fine-tuning the mini prior on a CPU, by precision and kernels.

    .venv/bin/python -m benchmarks.finetune [--steps 6] [--write]

CPU milliseconds per image on one thread, with the `mini` preset's loss and optimiser on random latents and labels: with
PyTorch's and diffusers' defaults, with freed memory kept, and also with the fast kernels. --write puts the table into
docs/mini_prior.md.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer

from benchmarks.prior_cost import table
from dmp_core.config.presets import load_config
from dmp_core.methods.dmp import finetune
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.training import loop
from dmp_core.training.data import LabelImages, LatentPairs
from dmp_core.training.latents import LatentColumn
from dmp_core.weights.load import DTYPES, load_base
from docs.writing.documents import fill

PRECISIONS: dict[str, Literal["no", "bf16"]] = {"float32": "no", "bfloat16": "bf16"}
SAMPLES = 64


def random_data(config: TrainConfig) -> tuple[LatentPairs, LabelImages]:
    """Random data in the shapes of the mini prior."""
    generator = torch.Generator().manual_seed(0)
    keys = tuple(f"{number:03d}" for number in range(SAMPLES))
    latents = torch.randn(2, 2, SAMPLES, 32, 8, 8, generator=generator)
    source, target = (LatentColumn(name, keys, *both) for name, both in zip(("image", "albedo"), latents, strict=True))
    codes = np.random.default_rng(0).integers(0, 256, (SAMPLES, 3, 64, 64), dtype=np.uint8)
    return LatentPairs(source, target, config.batch_size), LabelImages(codes, "albedo")


def milliseconds(mode: Literal["no", "bf16"], steps: int) -> float:
    """Per image, of the median step; the first step is a warm-up and not counted."""
    preset = load_config("mini")
    assert isinstance(preset.train, TrainConfig)
    config = preset.train.model_copy(update={"mixed_precision": mode, "steps": steps + 1, "checkpoint_every": 10**6})
    pairs, labels = random_data(config)
    clock = [time.process_time()]
    with tempfile.TemporaryDirectory() as folder:
        finetune.finetune(
            config,
            load_base(preset.base, dtype=DTYPES[mode]),
            pairs,
            Path(folder) / "work",
            Path(folder) / "out",
            labels=labels,
            progress=lambda *_: clock.append(time.process_time()),
        )
    taken = [later - sooner for sooner, later in pairwise(clock[1:])]
    return statistics.median(taken) / config.batch_size * 1e3


def costs(steps: int) -> dict[str, float]:
    return {name: milliseconds(mode, steps) for name, mode in PRECISIONS.items()}


def main(
    steps: int = 6,
    write: Annotated[bool, typer.Option(help="Also put the table into docs/mini_prior.md.")] = False,
) -> None:
    torch.set_num_threads(1)
    fast, kept = finetune.fast_kernels, loop.keep_freed_memory
    finetune.fast_kernels = lambda *_: nullcontext()
    loop.keep_freed_memory = lambda: None
    rows = {"by themselves": costs(steps)}
    loop.keep_freed_memory = kept  # from here on; it cannot be undone
    rows["freed memory kept"] = costs(steps)
    finetune.fast_kernels = fast
    rows["and the fast kernels"] = costs(steps)
    sys.stdout.write(table(rows))
    if write:
        fill("docs/mini_prior.md", "finetune", table(rows))


if __name__ == "__main__":
    typer.run(main)
