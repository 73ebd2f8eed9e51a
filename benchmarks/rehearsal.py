"""A dress rehearsal of the paper preset: every real component at full size, with random weights, on two images.

    make rehearsal                                     # on the CPU, in bfloat16
    make rehearsal REHEARSAL_FLAGS="--device cuda"     # on a GPU, in the preset's own float16
    .venv/bin/python -m benchmarks.rehearsal --write   # also puts the table into docs/paper.md
    make rehearsal REHEARSAL_FLAGS="--methods"         # the compared methods on normals as well

Every model and every artefact of the DAG is made in its own process, so that its peak memory can be measured.
Nothing is learnt: the rehearsal shows that configuration, file formats, shapes, precisions and memory fit together.
"""

from __future__ import annotations

import io
import json
import platform
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import full_size
from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.experiments.planning import plan_experiment
from dmp_core.experiments.settings import load_experiment
from dmp_core.stages import execute, plan
from dmp_core.store import Artefact, Workspace, decode_member, read_shard
from docs.writing.documents import fill

console = Console()

T = TypeVar("T")

_DATA = ("prompts", "images", "labels", "quality", "shards", "latents")

SHORT = {"steps": 2, "batch_size": 1, "checkpoint_every": 2, "log_every": 1}
"""Training steps."""


@dataclass(frozen=True)
class Measured:
    """One artefact's row."""

    node: str
    output: str
    samples: int
    seconds: float
    memory_gib: float
    gpu_gib: float | None


def rehearsal_config(models: Path, device: Literal["cpu", "cuda"], steps: int, size: int) -> PipelineConfig:
    """The paper preset with local folders for models, two images per split, and few steps.

    On a CPU the preset's float16 becomes bfloat16, which CPUs support.
    """
    paper = load_config("paper").model_dump(mode="json")
    dtype = {"dtype": "bfloat16"} if device == "cpu" else {"dtype": "float16"}
    sd = str(models / "stable-diffusion")
    weights = {
        "omnidata": str(models / "omnidata" / "omnidata_dpt_normal_v2.ckpt"),
        "zoedepth": str(models / "zoedepth"),
        "eva02": str(models / "eva02" / "eva02_L_ade_seg_upernet_sz512.pth"),
        "pienet": str(models / "pienet" / "real_world_model.t7"),
    }
    paper["splits"] = {
        "train": {"keywords": ["bedroom"], "count": 2},
        "in_domain": {"keywords": ["bedroom"], "count": 2},
    }
    paper["prompts"]["generator"] |= {"model": str(models / "bloom")} | dtype
    paper["images"] |= {"model": sd, "num_inference_steps": steps, "resolution": size} | dtype
    # Labels of random networks fail any gate.
    paper["quality"] = {name: None for name in paper["quality"]} | {"drop_flagged": False}
    for labeler in paper["labels"].values():
        labeler |= {"weights": weights[labeler["kind"]]} | dtype
    paper["base"]["model"] = sd
    paper["train"] |= SHORT
    paper["train"]["mixed_precision"] = "bf16" if device == "cpu" else "fp16"
    paper["sampling"] |= {"batch_size": 1} | dtype
    paper["latents"]["batch_size"] = 1
    paper["evaluate"]["bootstrap_samples"] = 100
    paper["runtime"]["device"] = device
    return validate(paper, "rehearsal")


def method_configs(config: PipelineConfig, models: Path) -> Iterator[PipelineConfig]:
    """The same configuration with each compared method, as `dmp compare --preset paper` sets it: two steps of
    training and of sampling. Not DMP with all weights: with Adam's moments these are 14 GB in float32.

    models: the folder of the additional models that the methods need.
    """
    plain = config.model_dump(mode="json")
    plain["editor"]["model"] = str(models / "instruct-pix2pix")
    for variant in plan_experiment(load_experiment("compare"), "paper", modalities=["normal"]):
        own = variant.config.train.model_dump(mode="json")
        if own["method"] == "dmp":
            continue
        fit = own.get("fit", own)
        if "steps" in fit:
            fit |= SHORT | {"mixed_precision": plain["train"]["mixed_precision"] if "fit" in own else "bf16"}
        if "sampling" in own:
            own["sampling"]["num_steps"] = 2
        if fit.get("clip_model"):
            fit["clip_model"] = str(models / "clip")
        yield validate(plain | {"train": own}, f"rehearsal of {variant.title}")


def rehearse(config: PipelineConfig, workspace: Path, modality: str | None = None) -> Iterator[Measured]:
    """Make every artefact in a new process; with `modality`, only its training, predictions and scores."""
    place, known = Workspace(workspace), workspace / "measured.json"
    rows: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    for node in plan(config):
        other = node.stage in _DATA or getattr(node.config, "task", None) != modality
        if modality and node.stage != "editor" and other:
            continue
        artefact = node.artefact(place)
        if artefact.status() != "complete" or artefact.fingerprint not in rows:
            samples, seconds, memory, gpu = apart(_make, config, node.id, str(workspace))
            images = node.samples if node.stage != "train" else samples
            row = Measured(node.id, describe(artefact), images, seconds, memory, gpu)
            rows[artefact.fingerprint] = asdict(row)
            known.write_text(json.dumps(rows, indent=1))
        yield Measured(**rows[artefact.fingerprint])


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """The result of `work`, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _make(config: PipelineConfig, node_id: str, workspace: str) -> tuple[int, float, float, float | None]:
    output = execute(config, node_id, workspace, force=True)
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    gpu = torch.cuda.max_memory_allocated() / 2**30 if torch is not None and on_gpu else None
    return output.samples, output.seconds, peak_gib(), gpu


def peak_gib() -> float:
    """This process's peak memory. Not `ru_maxrss` on Linux, which starts at the parent's value."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20  # KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)


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
    lines += ["", "| artefact | output | s | s an image | peak memory | GPU |", "|---|---|---|---|---|---|"]
    for row in rows:
        each = f"{row.seconds / row.samples:.1f}" if row.samples else ""
        gpu = "" if row.gpu_gib is None else f"{row.gpu_gib:.1f} GiB"
        lines.append(f"| {row.node} | {row.output} | {row.seconds:.1f} | {each} | {row.memory_gib:.1f} GiB | {gpu} |")
    total = sum(row.seconds for row in rows)
    peak = max(row.memory_gib for row in rows)
    return "\n".join([*lines, "", f"{len(rows)} artefacts in {total / 60:.0f} minutes; at most {peak:.1f} GiB."]) + "\n"


def main(
    workspace: Annotated[Path, typer.Option(help="Scratch folder for models and artefacts.")] = Path("runs/rehearsal"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(help="Denoising steps per image; the preset has 50.")] = 2,
    size: Annotated[int, typer.Option(help="Height and width of the images; the preset has 512.")] = 512,
    methods: Annotated[bool, typer.Option(help="Also the compared methods, on normals.")] = False,
    write: Annotated[bool, typer.Option(help="Also put the tables into docs/paper.md.")] = False,
) -> None:
    models = []
    for name in [*full_size.BUILDERS, *(full_size.FOR_METHODS if methods else ())]:
        path = apart(full_size.build, name, workspace / "models")
        models.append((name, *full_size.weights_of(path)))
        console.print(f"  ✓ {name}: {models[-1][1] / 1e6:.0f} M weights", highlight=False)
    config = rehearsal_config(workspace / "models", "cuda" if device == "cuda" else "cpu", steps, size)
    rows = []
    for row in _all_rows(config, workspace, workspace / "models" if methods else None):
        rows.append(row)
        console.print(
            f"  ✓ {row.node:34} {row.seconds:7.1f} s {row.memory_gib:5.1f} GiB  {row.output}", highlight=False
        )
    report = markdown(models, rows, config)
    (workspace / "rehearsal.md").write_text(report)
    console.print(_table(rows))
    console.print(f"report: {workspace}/rehearsal.md, {workspace}/report/index.html")
    if write:
        fill("docs/paper.md", f"rehearsal-{device}", report)


def _all_rows(config: PipelineConfig, workspace: Path, models: Path | None) -> Iterator[Measured]:
    """models: the folder of the methods' models; None: without methods."""
    yield from rehearse(config, workspace)
    seen: set[str] = set()
    for other in method_configs(config, models) if models else ():
        for row in rehearse(other, workspace, modality="normal"):
            if row.node not in seen and not row.node.endswith("-ceiling"):
                yield row
            if not row.node.startswith("evaluate"):
                seen.add(row.node)


def _table(rows: list[Measured]) -> Table:
    table = Table(title="rehearsal", title_justify="left")
    for column in ("artefact", "s an image", "GiB", "output"):
        table.add_column(column)
    for row in rows:
        each = f"{row.seconds / row.samples:.1f}" if row.samples else ""
        table.add_row(row.node, each, f"{row.memory_gib:.1f}", row.output)
    return table


if __name__ == "__main__":
    typer.run(main)
