"""A dress rehearsal of the paper preset: every real component at full size, with random weights, on two images.

    make rehearsal                                     # on the CPU, in bfloat16
    make rehearsal REHEARSAL_FLAGS="--device cuda"     # on a GPU, in the preset's own float16
    .venv/bin/python -m benchmarks.rehearsal --write   # also puts the table into docs/paper_rehearsal.md
    make rehearsal REHEARSAL_FLAGS="--methods"         # the compared methods on normals as well

In one process, as a user would: `dmp models pull --from` a local mirror, `dmp run`, `dmp compare` for the tables. The
weights are in a registry of their own (`DMP_MODELS_REGISTRY`). Nothing is learnt: the rehearsal shows that
configuration, file formats, shapes, precisions and memory fit together. On a GPU the device's memory is measured,
elsewhere it is that of `benchmarks.device_memory` at the preset's batch sizes.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import device_memory, full_size
from dmp_core.cli.commands import app
from dmp_core.cli.running import run_nodes
from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import dump, validate
from dmp_core.experiments.planning import plan_experiment
from dmp_core.experiments.settings import load_experiment
from dmp_core.progress import listening
from dmp_core.stages import Node, plan
from dmp_core.store import Artefact, Workspace, decode_member, read_shard
from dmp_core.weights import registry
from docs.writing.documents import fill

console = Console()

T = TypeVar("T")

_DATA = ("prompts", "images", "labels", "quality", "shards", "latents")

SHORT = {"steps": 2, "batch_size": 1, "checkpoint_every": 2, "log_every": 1}
"""Training steps."""
LIMIT_GIB = 22.0
"""Of a card of 24 GB, the device's context and the libraries' workspaces take the rest."""


@dataclass(frozen=True)
class Measured:
    """One artefact's row."""

    node: str
    output: str
    samples: int
    seconds: float
    memory_gib: float
    gpu_gib: float | None
    """Measured; on the CPU counted for the preset's batch size, or None."""


# ------------------------------------------------------------------------------------ preparation
def write_mirror(names: Iterable[str], root: Path) -> Iterator[tuple[str, int, int]]:
    """Build these models below `root/mirror`, and their registry; yields (name, weights, bytes) of each."""
    for name in names:
        yield name, *full_size.weights_of(apart(full_size.build, name, root / "mirror"))
    full_size.write_registry(root / "mirror", root / "registry.yaml")


def use_registry(root: Path) -> None:
    """From now on this process, and those that it starts, have the models of that registry."""
    os.environ["DMP_MODELS_DIR"] = str(root.absolute() / "models")
    os.environ[registry.OWN] = str(root.absolute() / "registry.yaml")


def rehearsal_config(device: Literal["cpu", "cuda"], steps: int, size: int, images: int = 2) -> PipelineConfig:
    """The paper preset with few images per split and few steps; it names its own models.

    On a CPU the preset's float16 becomes bfloat16, which CPUs support.
    """
    paper = load_config("paper").model_dump(mode="json")
    dtype = {"dtype": "bfloat16"} if device == "cpu" else {"dtype": "float16"}
    paper["splits"] = {
        "train": {"keywords": ["bedroom"], "count": images},
        "in_domain": {"keywords": ["bedroom"], "count": images},
    }
    paper["prompts"]["generator"] |= dtype
    paper["images"] |= {"num_inference_steps": steps, "resolution": size} | dtype
    # Labels of random networks fail any gate.
    paper["quality"] = {name: None for name in paper["quality"]} | {"drop_flagged": False}
    for labeler in paper["labels"].values():
        labeler |= dtype
    paper["train"] |= SHORT
    paper["train"]["mixed_precision"] = "bf16" if device == "cpu" else "fp16"
    paper["sampling"] |= {"batch_size": 1} | dtype
    paper["latents"]["batch_size"] = 1
    paper["evaluate"]["bootstrap_samples"] = 100
    paper["runtime"]["device"] = device
    return validate(paper, "rehearsal")


def method_configs(config: PipelineConfig) -> Iterator[PipelineConfig]:
    """The same configuration with each compared method, as `dmp compare --preset paper` sets it: two steps of
    training and of sampling. Not DMP with all weights: with Adam's moments these are 14 GB in float32.
    """
    plain = config.model_dump(mode="json")
    for variant in plan_experiment(load_experiment("compare"), "paper", modalities=["normal"]):
        own = variant.config.train.model_dump(mode="json")
        if own["method"] == "dmp":
            continue
        fit = own.get("fit", own)
        if "steps" in fit:
            fit |= SHORT | {"mixed_precision": plain["train"]["mixed_precision"] if "fit" in own else "bf16"}
        if "sampling" in own:
            own["sampling"]["num_steps"] = 2
        yield validate(plain | {"train": own}, f"rehearsal of {variant.title}")


# --------------------------------------------------------------------------------------- the walk
def walk(config: PipelineConfig, root: Path, pulled: Sequence[str], others: Iterable[PipelineConfig] = ()) -> None:
    """Pull from the mirror, run, and write the tables, in this process.

    root: with `mirror` and `registry.yaml`; the workspace, too. pulled: arguments of `dmp models pull`.
    others: configurations whose nodes for normals are made before the tables.
    """
    use_registry(root)
    app(["models", "pull", *pulled, "--from", str(root / "mirror")], standalone_mode=False)
    file = root / "rehearsal.yaml"
    file.write_text(f"extends: null\n{dump(config)}")
    command = ["--preset", config.preset, "--config", str(file), "--workspace", str(root)]
    app(["run", *command], standalone_mode=False)
    for other in others:
        run_nodes(other, str(root), list(nodes_of(other, "normal")))
    app(["compare", *command, "--variants", "dmp"], standalone_mode=False)


def nodes_of(config: PipelineConfig, modality: str) -> Iterator[Node]:
    """Training, predictions and scores of a modality, and the editor that a method may need."""
    for node in plan(config):
        mine = node.stage not in _DATA and getattr(node.config, "task", None) == modality
        if node.stage == "editor" or (mine and not node.name.endswith("-ceiling")):
            yield node


class Measuring:
    """Receives the progress of stages; measures the memory of each, and keeps it in a file between calls."""

    def __init__(self, root: Path, counted: Callable[[str], float | None]) -> None:
        """counted: the device's memory by an artefact's id, where there is none to measure."""
        self.file, self.counted = root / "measured.json", counted
        self.memory: dict[str, tuple[float, float | None]] = (
            json.loads(self.file.read_text()) if self.file.exists() else {}
        )

    def started(self, name: str) -> None:
        reset_peaks()

    def advanced(self, name: str, done: int, total: int, message: str) -> None: ...

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        if not cached:
            self.memory[name] = peak_gib(), device_gib()
            self.file.write_text(json.dumps(self.memory, indent=1))

    def row(self, node: Node, place: Workspace) -> Measured:
        artefact = node.artefact(place)
        made = artefact.published()
        memory, device = self.memory.get(node.id, (0.0, None))
        images = node.samples if node.stage != "train" else made.samples
        device = self.counted(node.id) if device is None else device
        return Measured(node.id, describe(artefact), images, made.seconds, memory, device)


def _count() -> dict[str, float]:
    return {peak.artefact: peak.total / 2**30 for peak in device_memory.peaks(load_config("paper"))}


@cache
def counted_peaks() -> dict[str, float]:
    """GiB by kind of artefact, at the preset's batch sizes; counted in a process without tensors of the walk's models,
    which some of them keep for all their copies.
    """
    return apart(_count)


def counted_gib(node_id: str) -> float | None:
    """Of the same kind of artefact; None if it uses no device, or is of a compared method."""
    stage, _, name = node_id.partition("/")
    kinds = {"labels": f"labels/{name.rpartition('-')[2]}"}
    if stage in ("train", "predict") and not re.search("-(dmp(-[a-z]+)?|ceiling)$", name):
        return None
    kind = "predict (ceiling)" if name.endswith("-ceiling") else kinds.get(stage, stage)
    return counted_peaks().get(kind)


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """The result of `work`, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def reset_peaks() -> None:
    """Measure from here on; without Linux's way to do so, peaks are those since the process began."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def device_gib() -> float | None:
    """Peak of torch's tensors on the GPU; None without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated() / 2**30)


def peak_gib() -> float:
    """This process's peak memory."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20  # KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)


# --------------------------------------------------------------------------------------- the report
def describe(artefact: Artefact) -> str:
    """Members of the first sample, columns of tables, tensors of weights, with shapes and types."""
    names = [record.name for record in artefact.published().files]
    tars = [name for name in names if name.endswith(".tar")]
    if tars:
        sample = next(iter(read_shard(artefact.workspace, artefact.file(tars[0]))))
        members = ((name, decode_member(name, value)) for name, value in sample.items() if name != "__key__")
        return ", ".join(f"{name} {shape}" for name, value in members if (shape := _shape(value)))
    if any(name.startswith("shard-") and name.endswith(".safetensors") for name in names):
        from safetensors.torch import load

        tensors = load(artefact.read_bytes(names[0]))
        return ", ".join(f"{name} {_size(value.shape)} {_type(value)}" for name, value in tensors.items())
    described = [f"{name} {text}" for name in names if (text := _describe_file(artefact, name))]
    return ", ".join((described or names)[:3])


def _describe_file(artefact: Artefact, name: str) -> str:
    """Size and types of a table or of weights; empty for other files."""
    if name.endswith(".parquet"):
        table = pd.read_parquet(io.BytesIO(artefact.read_bytes(name)))
        return f"{_size(table.shape)} {_counted(table.dtypes.astype(str))}"
    if name.endswith(".safetensors"):
        from safetensors.torch import load

        tensors = load(artefact.read_bytes(name))
        return f"{sum(t.numel() for t in tensors.values())} weights {_counted(map(_type, tensors.values()))}"
    return ""


def _counted(types: Iterable[str]) -> str:
    return " + ".join(f"{count} {kind}" for kind, count in Counter(types).items())


def _shape(value: Any) -> str:
    if hasattr(value, "getbands"):
        return f"{value.height}×{value.width}×{len(value.getbands())} 8 bit"
    return f"{_size(value.shape)} {_type(value)}" if hasattr(value, "shape") else ""


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _type(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def markdown(models: list[tuple[str, int, int]], rows: list[Measured], config: PipelineConfig) -> str:
    """Both tables: the models, and the cost of every artefact."""
    images = config.images.model_dump()
    where = (
        f"{platform.machine()}, {config.runtime.device}, {images.get('num_inference_steps')} denoising steps per image"
    )
    lines = [f"On {where}, {config.sampling.dtype}.", "", "| model | weights | file |", "|---|---|---|"]
    lines += [f"| {name} | {count / 1e6:.0f} M | {size / 2**30:.2f} GiB |" for name, count, size in models]
    lines += [
        "",
        "| artefact | output | s | s per image | peak, GiB | of the device, GiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = f"{row.seconds / row.samples:.1f}" if row.samples else ""
        memory = f"{row.memory_gib:.1f} | {_gib(row.gpu_gib)}"
        lines.append(f"| {row.node} | {row.output} | {row.seconds:.1f} | {each} | {memory} |")
    total, peak = sum(row.seconds for row in rows), max(row.memory_gib for row in rows)
    most = max((row.gpu_gib or 0 for row in rows), default=0)
    ending = f"at most {peak:.1f} GiB of the machine and {most:.1f} GiB of the device"
    return "\n".join([*lines, "", f"{len(rows)} artefacts in one process, {total / 60:.0f} minutes; {ending}."]) + "\n"


def _gib(size: float | None) -> str:
    return "" if size is None else f"{size:.1f}"


def main(
    workspace: Annotated[Path, typer.Option(help="Scratch folder for models and artefacts.")] = Path("runs/rehearsal"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(help="Denoising steps per image; the preset has 50.")] = 2,
    size: Annotated[int, typer.Option(help="Height and width of the images; the preset has 512.")] = 512,
    images: Annotated[int, typer.Option(min=1, help="Images per split.")] = 2,
    methods: Annotated[bool, typer.Option(help="Also the compared methods, on normals.")] = False,
    write: Annotated[bool, typer.Option(help="Also put the tables into docs/paper_rehearsal.md.")] = False,
) -> None:
    workspace.mkdir(parents=True, exist_ok=True)
    models = []
    for built in write_mirror([*full_size.BUILDERS, *(full_size.FOR_METHODS if methods else ())], workspace):
        models.append(built)
        console.print(f"  ✓ {built[0]}: {built[1] / 1e6:.0f} M weights", highlight=False)
    use_registry(workspace)
    config = rehearsal_config("cuda" if device == "cuda" else "cpu", steps, size, images)
    others = list(method_configs(config)) if methods else []
    measuring = Measuring(workspace, counted_gib)
    with listening(measuring):
        walk(config, workspace, ["--preset", "paper", *(full_size.FOR_METHODS if methods else ())], others)
    rows = list(_rows(config, others, measuring, Workspace(workspace)))
    report = markdown(models, rows, config)
    (workspace / "rehearsal.md").write_text(report)
    console.print(_table(rows))
    console.print(f"report: {workspace}/rehearsal.md, {workspace}/report/index.html")
    if write:
        fill("docs/paper_rehearsal.md", f"rehearsal-{device}", report)
    if too_large := [row.node for row in rows if (row.gpu_gib or 0) > LIMIT_GIB]:
        raise SystemExit(f"more than {LIMIT_GIB} GiB of the device: {', '.join(too_large)}")


def _rows(
    config: PipelineConfig, others: Iterable[PipelineConfig], measuring: Measuring, place: Workspace
) -> Iterator[Measured]:
    for node in plan(config):
        yield measuring.row(node, place)
    for other in others:
        for node in nodes_of(other, "normal"):
            yield measuring.row(node, place)


def _table(rows: list[Measured]) -> Table:
    table = Table(title="rehearsal", title_justify="left")
    for column in ("artefact", "s per image", "GiB", "device GiB", "output"):
        table.add_column(column)
    for row in rows:
        each = f"{row.seconds / row.samples:.1f}" if row.samples else ""
        table.add_row(row.node, each, f"{row.memory_gib:.1f}", _gib(row.gpu_gib), row.output)
    return table


if __name__ == "__main__":
    typer.run(main)
