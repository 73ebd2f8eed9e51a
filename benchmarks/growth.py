"""How time and memory grow with the number of samples, without any model.

    python -m benchmarks.growth [--sizes 1000,10000,100000] [--write]

Each part has a process of its own. A source of noise, with labels that were made once, takes the renderer's place, so
that what is measured is the pipeline: prompts, images, labels, quality, shards and evaluation (of labels against
themselves, with intervals). Then `dmp plan`, a rerun that finds all complete, the import of so many small files, and
for one size the same dataset through Prefect.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dmp_core.config import load_config
from dmp_core.config.pipeline import PipelineConfig
from docs.writing.documents import ROOT, fill

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STAGES = ("prompts", "images", "labels", "quality", "shards")
SIDE = 16
PLOT = "docs/images/growth.svg"


class Noise:
    """Noise from each sample's seed (equal images would be left out as copies); takes the place of `RenderedImages`."""

    batches = None

    def __init__(self, settings: Any, runtime: Any) -> None:
        import numpy as np

        from dmp_core.dataset.truth import pack_truth

        flat = np.zeros((SIDE, SIDE, 3), np.float32)
        flat[..., 2] = 1
        depth = np.linspace(1, 2, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
        self.truth = pack_truth({"normal": flat, "depth": depth}, ["normal", "depth"])

    def __enter__(self) -> Noise:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def samples(self, rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        from dmp_core.synthesis.sources import image_sample

        for row in rows:
            yield image_sample(row, noise(int(row["seed"])), {"kind": "noise"}) | {"truth.npz": self.truth}


@contextmanager
def noise_for_renders() -> Iterator[None]:
    """Inside, noise takes the renderer's place in this process."""
    from dmp_core.synthesis.sources import SOURCES

    renderer, SOURCES["render"] = SOURCES["render"], "benchmarks.growth:Noise"
    try:
        yield
    finally:
        SOURCES["render"] = renderer


def noise(seed: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@dataclass
class Grown:
    """What one size took: seconds and the most MiB that the process held, by part."""

    samples: int
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


def settings(samples: int, folder: Path | None = None) -> PipelineConfig:
    """Two modalities with exact labels and tiny images; the split `in_domain` may be a folder's images."""
    sizes = [f"images.resolution={SIDE}", "shards.samples_per_shard=200", "runtime.workers=1"]
    chosen = [f"splits.train.count={samples}", "modalities=[normal, depth]", *sizes]
    if folder is not None:
        chosen.append(f"splits.in_domain={{folder: {folder}, fit: keep, keywords: [], count: null}}")
    return load_config("smoke", None, chosen)


def make(samples: int, folder: Path) -> dict[str, float]:
    """The dataset, stage by stage, in a plain loop; seconds per stage."""
    with noise_for_renders():
        return seconds_per_stage(settings(samples), folder, STAGES)


def seconds_per_stage(config: PipelineConfig, folder: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run these stages in a plain loop."""
    from dmp_core.stages import execute, one_plan

    seconds = dict.fromkeys(stages, 0.0)
    with one_plan(config) as planned:
        for node in (node for node in planned if node.stage in stages):
            begun = time.perf_counter()
            execute(config, node.id, str(folder))
            seconds[node.stage] += time.perf_counter() - begun
    return seconds


def through_prefect(samples: int, folder: Path) -> dict[str, float]:
    """The dataset in a plain loop and as a flow, one after the other in this process."""
    alone = sum(make(samples, folder / "alone").values())
    as_a_flow(20, folder / "first")  # the first flow of a process pays for the server's start
    begun = time.perf_counter()
    as_a_flow(samples, folder / "flow")
    return {"prefect": time.perf_counter() - begun, "in a loop": alone}


def as_a_flow(samples: int, folder: Path) -> None:
    from dmp_core.stages import plan
    from flows.pipeline import run_pipeline

    config = settings(samples)
    with noise_for_renders():
        run_pipeline(config, str(folder), only=[node.id for node in plan(config) if node.stage in STAGES])


def score(samples: int, folder: Path) -> dict[str, float]:
    """Labels of depth as their own predictions: read, decoded, scored, with intervals."""
    from dmp_core.modalities import find_modality
    from dmp_core.scoring.protocol import aggregate
    from dmp_core.stages import find, plan
    from dmp_core.stages.evaluate import scored
    from dmp_core.store import Workspace

    labels = find(plan(settings(samples)), "labels/train-depth").artefact(Workspace(folder))
    begun = time.perf_counter()
    tables = scored(find_modality("depth"), "train", {"own": labels}, labels, [])
    assert len(tables[0].values) == samples
    aggregate(tables, samples=1000)
    return {"evaluation": time.perf_counter() - begun}


def plan_and_rerun(samples: int, folder: Path) -> dict[str, float]:
    """What `dmp plan` and a `dmp run` with nothing to do compute, without the process's start."""
    from dmp_core.cli.running import run_nodes
    from dmp_core.stages import plan, statuses
    from dmp_core.store import Workspace

    begun = time.perf_counter()
    nodes = [node for node in plan(settings(samples)) if node.stage in STAGES]
    assert set(statuses(nodes, Workspace(folder)).values()) == {"complete"}
    planned = time.perf_counter()
    assert all(output.cached for output in run_nodes(settings(samples), str(folder), nodes))
    return {"plan": planned - begun, "rerun": time.perf_counter() - planned}


def import_files(samples: int, folder: Path) -> dict[str, float]:
    """A folder of so many small images becomes shards."""
    from dmp_core.modalities.files import png_bytes
    from dmp_core.stages import execute, one_plan

    files = folder / "files"
    files.mkdir()
    for index in range(samples):
        (files / f"{index:07d}.png").write_bytes(png_bytes(noise(index)))
    config = settings(samples, files)
    begun = time.perf_counter()
    with one_plan(config) as planned:
        for node in (node for node in planned if node.id in ("prompts/in_domain", "images/in_domain")):
            execute(config, node.id, str(folder / "w"))
    return {"import": time.perf_counter() - begun}


PARTS = {
    "dataset": make,
    "evaluation": score,
    "rerun": plan_and_rerun,
    "import": import_files,
    "prefect": through_prefect,
}
OF_PREFECT = ("prefect", "in a loop")
TOGETHER = ("dataset", "evaluation", "rerun")
"""Parts that share a workspace."""


def measured(samples: int, parts: Iterable[str]) -> Grown:
    """Each part in a process of its own."""
    grown = Grown(samples)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            place = Path(folder) / ("dataset" if part in TOGETHER else part)
            place.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "benchmarks.growth", "--sizes", str(samples)]
            env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            command += ["--part", part, "--folder", str(place)]
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            answer = json.loads(done.stdout.splitlines()[-1])
            grown.seconds |= answer["seconds"]
            grown.memory[part] = answer["memory"]
    return grown


def in_this_process(part: str, samples: int, folder: Path) -> dict[str, Any]:
    """The seconds of a part, and the most memory that this process has held."""
    seconds = PARTS[part](samples, folder)
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def rows(sizes: Sequence[Grown]) -> list[list[str]]:
    """One per figure, one column per size."""
    lines = [
        [f"{name}, s", *(f"{grown.seconds[name]:.1f}" for grown in sizes)]
        for name in sizes[-1].seconds
        if name not in OF_PREFECT
    ]
    for part in (part for part in sizes[-1].memory if part != "prefect"):
        lines.append([f"{part}: memory, MiB", *(f"{grown.memory[part]:.0f}" for grown in sizes)])
    if any("prefect" in grown.seconds for grown in sizes):
        lines.append(["share of Prefect, %", *map(_prefect_share, sizes)])
    return lines


def _prefect_share(grown: Grown) -> str:
    if "prefect" not in grown.seconds:
        return ""
    return f"{100 * (1 - grown.seconds['in a loop'] / grown.seconds['prefect']):.1f}"


def draw(sizes: Sequence[Grown], file: Path) -> None:
    """Seconds and memory by the number of samples."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "growth"
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    numbers = [grown.samples for grown in sizes]
    for name in (name for name in sizes[-1].seconds if name not in OF_PREFECT):
        left.plot(numbers, [grown.seconds[name] for grown in sizes], "o-", ms=3, label=name)
    for part in (part for part in sizes[-1].memory if part != "prefect"):
        right.plot(numbers, [grown.memory[part] for grown in sizes], "o-", ms=3, label=part)
    left.set(xscale="log", yscale="log", xlabel="samples", ylabel="seconds")
    right.set(xscale="log", ylim=(0, None), xlabel="samples", ylabel="memory, MiB")
    for axis in (left, right):
        axis.legend(fontsize=6)
    figure.savefig(file, metadata={"Date": None})


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of samples, with commas.")] = "1000,10000,100000",
    write: Annotated[bool, typer.Option(help="Write table and plot into docs/.")] = False,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    numbers = [int(number) for number in sizes.split(",")]
    if part is not None and folder is not None:
        typer.echo(json.dumps(in_this_process(part, numbers[0], folder)))
        return
    found = []
    for number in numbers:  # Prefect's share in the middle
        parts = [name for name in PARTS if name != "prefect" or number == numbers[len(numbers) // 2]]
        found.append(measured(number, parts))
        typer.echo(json.dumps(asdict(found[-1])))
    table = Table("", *(f"{number:,}" for number in numbers))
    for row in rows(found):
        table.add_row(*row)
    Console().print(table)
    if write:
        draw(found, ROOT / PLOT)
        lines = [["", *(f"{number:,}" for number in numbers)], ["---", *["---:"] * len(numbers)], *rows(found)]
        fill("docs/performance.md", "growth", "".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    typer.run(main)
