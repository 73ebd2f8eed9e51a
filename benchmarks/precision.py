"""What half precision changes: float16 and bfloat16 against float32, with the same random weights and inputs.

    .venv/bin/python -m benchmarks.precision --write                        # on a GPU, at Stable Diffusion's size
    .venv/bin/python -m benchmarks.precision --size tiny --device cpu       # proves the script

A training step's loss and gradient, predictions and each labeler's output, computed as the package computes them: U-Net
and autoencoder in the precision itself, labelers in float32 weights under autocast. Differences are in per cent of the
mean absolute value of what float32 gives. --write puts the table into docs/performance.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.gpu import Machine, labeler, labelers_of, machine, prediction, reason_of, training_parts
from dmp_core.memory import release_memory
from docs.writing.documents import fill

HALVES = (torch.float16, torch.bfloat16)
SCALED = 2.0**16
"""The loss while its gradient is computed, as accelerate's gradient scaler begins with float16."""


def training_loss(where: Machine) -> Tensor:
    unet, loss_at, _ = training_parts(where, 1)
    with torch.no_grad(), where.autocast():
        return loss_at(unet, 0)


def training_gradient(where: Machine) -> Tensor:
    """Of all low-rank layers, (N,)."""
    unet, loss_at, layers = training_parts(where, 1)
    scale = SCALED if where.dtype == torch.float16 else 1.0
    with where.autocast():
        loss = loss_at(unet, 0)
    (loss * scale).backward()
    return torch.cat([layer.grad.flatten() for layer in layers if layer.grad is not None]).float() / scale


def predicted(where: Machine, steps: int) -> Tensor:
    """Decoded images in [0, 1], (1, 3, H, W)."""
    images: Tensor = prediction(where, 1, steps, small=False, compiled=False)[0]()
    return images


def labelled(where: Machine, kind: str) -> Tensor:
    """All outputs of a labeler's network, (N,)."""
    run, _operations = labeler(where, 1, kind, where.dtype)
    return torch.cat([tensor.float().flatten() for tensor in _tensors(run())])


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (Mapping, list, tuple)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def outputs(where: Machine) -> dict[str, Callable[[Machine], Tensor]]:
    """What is compared, by its name in the table."""
    return {
        "training step, loss": training_loss,
        "training step, gradient": training_gradient,
        "prediction, 1 step": partial(predicted, steps=1),
        "prediction, 5 steps": partial(predicted, steps=5),
        **{f"labels, {kind}": partial(labelled, kind=kind) for kind in labelers_of(where.size)},
    }


def computed(compute: Callable[[Machine], Tensor], where: Machine, dtype: torch.dtype) -> Tensor | str:
    """On the CPU in float64; or why there is none."""
    torch.manual_seed(1)
    try:
        return compute(dataclasses.replace(where, dtype=dtype)).detach().double().cpu()
    except (RuntimeError, ValueError) as error:  # the other rows are worth having
        return reason_of(error)
    finally:
        release_memory()


def cells(exact: Tensor | str, half: Tensor | str) -> list[str]:
    """Largest and mean difference in per cent; the reason where there is none."""
    if isinstance(exact, str) or isinstance(half, str):
        return [half if isinstance(half, str) else str(exact), ""]
    if not half.isfinite().all():
        return ["not finite", ""]
    difference = (half - exact).abs() / exact.abs().mean() * 100
    return [f"{difference.max():.2g}", f"{difference.mean():.2g}"]


def main(
    size: Annotated[str, typer.Option(help="sd, or tiny to prove the script.")] = "sd",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    write: Annotated[bool, typer.Option(help="Put the table into docs/performance.md.")] = False,
) -> None:
    where = machine(device, size)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {where.name}, torch {torch.__version__}.",
        "",
        "| % of float32's mean | float16, largest | mean | bfloat16, largest | mean |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, compute in outputs(where).items():
        exact = computed(compute, where, torch.float32)
        row = [cell for dtype in HALVES for cell in cells(exact, computed(compute, where, dtype))]
        lines.append(f"| {name} | {' | '.join(cell.replace('|', '/') for cell in row)} |")
        typer.echo(lines[-1], err=True)
    table = "\n".join(lines) + "\n"
    typer.echo(table)
    if write:
        fill("docs/performance.md", "precision", table)


if __name__ == "__main__":
    typer.run(main)
