"""Mutation checks: each of these one-line defects must make a test fail. `make mutants` runs them all.

    python -m tests.mutants [--only oracle]

Works on a copy of the source tree, so that nothing can be left broken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ROOT = Path(__file__).parent.parent
PARTS = ("dmp_core", "flows", "tasks", "tests", "data_manifests", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """One defect: a piece of one file, what replaces it, and the tests that should notice."""

    defect: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


PROCESS = "dmp_core/diffusion/process.py"
SAMPLER = "dmp_core/diffusion/sampler.py"
SCHEDULE = "dmp_core/diffusion/schedule.py"
ADAPTERS = "dmp_core/diffusion/adapters.py"
SHARDS = "dmp_core/store/shards.py"
GATES = "dmp_core/quality/gates.py"
MUTANTS = (
    Mutant(
        "ᾱ is shifted by one step in the process",
        SCHEDULE,
        "self.alphas_cumprod.to(timesteps.device)[timesteps]",
        "self.alphas_cumprod.to(timesteps.device)[(timesteps - 1).clamp(min=0)]",
        ("tests/diffusion/test_process.py",),
    ),
    Mutant(
        "ᾱ is shifted by one step in the sampler",
        SCHEDULE,
        "alphas = self.alphas_cumprod[timesteps]",
        "alphas = self.alphas_cumprod[(timesteps - 1).clamp(min=0)]",
        ("tests/diffusion", "tests/golden/test_diffusion.py"),
    ),
    Mutant(
        "x and y are swapped in eq. 2",
        PROCESS,
        "torch.add(signal * y, source * x)",
        "torch.add(signal * x, source * y)",
        ("tests/diffusion/test_process.py",),
    ),
    Mutant(
        "x and y are swapped in the target of eq. 3",
        PROCESS,
        "signal * x - source * y",
        "signal * y - source * x",
        ("tests/diffusion/test_process.py",),
    ),
    Mutant(
        "oracle and estimated are confused",
        SAMPLER,
        'source == "oracle" and',
        'source == "estimated" and',
        ("tests/diffusion",),
    ),
    Mutant(
        "the LoRA scale of new adapters is doubled",
        ADAPTERS,
        "lora_alpha=rank if alpha is None else alpha",
        "lora_alpha=2 * rank if alpha is None else alpha",
        ("tests/diffusion/test_adapters.py",),
    ),
    Mutant(
        "the LoRA scale of published adapters is doubled",
        "dmp_core/diffusion/lora_files.py",
        "alphas.get(module, float(own))",
        "alphas.get(module, 2 * float(own))",
        ("tests/diffusion/test_lora_files.py", "tests/golden/test_diffusion.py"),
    ),
    Mutant(
        "a mirrored normal map keeps the sign of its x",
        "dmp_core/modalities/colour.py",
        "mirrored[..., 0] = 255 - mirrored[..., 0] if mirrored.dtype == np.uint8 else -mirrored[..., 0]",
        "pass",
        ("tests/labelers/test_encoding.py",),
    ),
    Mutant(
        "the last step always lands on ᾱ = 1",
        SCHEDULE,
        "return torch.ones(()) if self.set_alpha_to_one else self.alphas_cumprod[0]",
        "return torch.ones(())",
        ("tests/diffusion", "tests/golden/test_diffusion.py"),
    ),
    Mutant(
        "the image's latents are drawn instead of the posterior's mode",
        "dmp_core/diffusion/latents.py",
        "posterior.mode() if generator is None else posterior.sample(generator)",
        "posterior.sample(generator)",
        ("tests/diffusion",),
    ),
    Mutant(
        "a mirrored image is trained on its unmirrored label",
        "dmp_core/training/data.py",
        "self.target.gather(batch)",
        "self.target.gather(replace(batch, flips=0 * batch.flips))",
        ("tests/training",),
    ),
    Mutant(
        "angles are measured on colour codes",
        "dmp_core/evaluation/metrics.py",
        "cross = torch.linalg.cross(pred, true, dim=1)",
        "pred, true = pred / 2 + 0.5, true / 2 + 0.5; cross = torch.linalg.cross(pred, true, dim=1)",
        ("tests/evaluation/test_metrics.py",),
    ),
    Mutant(
        "the published angle is taken on our axes",
        "dmp_core/modalities/colour.py",
        'PUBLISHED_AXES: Axes = "opencv"',
        'PUBLISHED_AXES: Axes = "opengl"',
        ("tests/scoring/test_protocol.py",),
    ),
    Mutant(
        "a shard of another fingerprint counts as made",
        SHARDS,
        "if record is None or record.fingerprint != out.fingerprint:",
        "if record is None:",
        ("tests/store/test_store.py",),
    ),
    Mutant(
        "a shard that is made again and differs is published",
        SHARDS,
        "if published is not None and published.sha256 != record.sha256:",
        "if published is None and self.expected:",
        ("tests/store/test_store.py",),
    ),
    Mutant(
        "a manifest of other settings counts",
        "dmp_core/store/workspace.py",
        "return manifest if manifest.fingerprint == self.fingerprint else None",
        "return manifest",
        ("tests/store/test_store.py",),
    ),
    Mutant(
        "an input is read without its digest",
        "dmp_core/store/workspace.py",
        "if stated.get(name) != hashlib.sha256(data).hexdigest():",
        "if name not in stated:",
        ("tests/store",),
    ),
    Mutant(
        "a score at the bound fails its gate",
        GATES,
        '"min": values < bound',
        '"min": values <= bound',
        ("tests/quality/test_gates.py",),
    ),
    Mutant(
        "a missing score fails its gate",
        GATES,
        "fails.fillna(False)",
        "fails.fillna(True)",
        ("tests/quality/test_gates.py",),
    ),
    Mutant(
        "depth above the scale is not clipped",
        "dmp_core/modalities/depth.py",
        "np.clip(((values + 1) / 2).mean(-1), 0, 1 if code.depth_clip else None)",
        "np.clip(((values + 1) / 2).mean(-1), 0, None)",
        ("tests/labelers/test_encoding.py", "tests/modalities"),
    ),
)


def main(only: Annotated[str, typer.Option(help="Only the defects with this text in their name.")] = "") -> None:
    console = Console()
    survivors = []
    for mutant in [m for m in MUTANTS if only in m.defect]:
        noticed = is_noticed(mutant)
        console.print(f"  {'✓ noticed ' if noticed else '✗ SURVIVED'}  {mutant.defect}", highlight=False)
        survivors += [] if noticed else [mutant.defect]
    raise typer.Exit(1 if survivors else 0)


def is_noticed(mutant: Mutant) -> bool:
    """Whether the mutant's tests fail on a copy of the tree that has the defect. Raises if it cannot be planted."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in PARTS:
            place = ROOT / part
            ignore = shutil.ignore_patterns("__pycache__", "priors", "adapters")
            shutil.copytree(place, copy / part, ignore=ignore) if place.is_dir() else shutil.copy(place, copy / part)
        file = copy / mutant.file
        source = file.read_text()
        if source.count(mutant.right) != 1:
            raise ValueError(
                f"{mutant.file}: {mutant.right!r} stands there {source.count(mutant.right)} times, not once"
            )
        file.write_text(source.replace(mutant.right, mutant.wrong))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", *mutant.tests]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: tests failed; anything else: they could not run
        raise RuntimeError(f"{mutant.defect}: pytest could not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1


if __name__ == "__main__":
    typer.run(main)
