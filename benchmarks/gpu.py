"""Networks of Stable Diffusion's size with random weights on a GPU: samples per second, memory, and how busy it is.

    make bench-gpu                                               # at most eight minutes on an H100
    .venv/bin/python -m benchmarks.gpu --size tiny --device cpu  # proves the script, says nothing of speed

Each piece of work is run as the package runs it: a training step of low-rank layers from latents (plain, channels-last,
compiled), prediction at one and five steps, images from text, each labeler. Its operations are counted once; their
share of the device's speed (model FLOP utilisation) is of the largest matrix product that was measured beside it, and
of the maker's figure where that is known. Medians of repeated runs; the device is waited for before and after each.
--write puts the table into docs/performance.md, and all numbers beside it. Pieces that fail, or for which no time is
left, say why.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks import full_size
from benchmarks.flops import tera
from dmp_core.config import load_config
from dmp_core.diffusion import DMPPipeline, add_lora, lora_parameters
from dmp_core.labelers.settings import ModelLabels
from dmp_core.memory import out_of_memory, release_memory
from dmp_core.methods.dmp.finetune import MorphingLoss
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.resources import manifest_path
from dmp_core.stages.hardware import makers_figures
from dmp_core.training.data import LatentPairs
from dmp_core.training.latents import LatentColumn
from dmp_core.training.loop import make_accelerator
from docs.writing.documents import ROOT, fill

Size = Literal["sd", "tiny"]
STORED = "docs/results/gpu.json"
MODES = {torch.float32: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    name: str
    batch: int
    """Samples per run; halved while memory runs out."""
    build: Callable[[int], tuple[Callable[[], Any], Callable[[], float]]]
    """Batch → a run of it, and what counts its operations (10¹²)."""


@dataclass(frozen=True)
class Row:
    """What was measured of a piece of work, or why nothing was."""

    name: str
    batch: int = 0
    seconds: float = 0.0
    """Of a run, median."""
    spread: float = 0.0
    """Largest minus smallest, relative to the median."""
    tflop: float = 0.0
    """10¹² operations per sample."""
    peak_gib: float | None = None
    failed: str | None = None

    @property
    def per_second(self) -> float:
        return self.batch / self.seconds

    @property
    def reached(self) -> float:
        """10¹² operations a second."""
        return self.per_second * self.tflop


@dataclass(frozen=True)
class Machine:
    """Where, and at which size."""

    device: str
    dtype: torch.dtype
    size: Size

    @property
    def side(self) -> int:
        """Of the images, pixels."""
        return 512 if self.size == "sd" else 64

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name() if self.device == "cuda" else platform.processor() or platform.machine()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def built(self, build: Callable[[], Any]) -> Any:
        """A network on the device, in the precision of inference, its weights random."""
        torch.manual_seed(0)
        with torch.device(self.device):
            network = build()
        return nn.Module.to(network, self.device, self.dtype).eval().requires_grad_(False)

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.rand(*shape, device=self.device, dtype=dtype or self.dtype)

    def autocast(self) -> Any:
        mixed = self.dtype != torch.float32
        return torch.autocast(self.device, self.dtype) if mixed else nullcontext()


def machine(device: str, size: str) -> Machine:
    """Raises BadParameter for others than `sd` or `tiny` and `cuda` or `cpu`, and for a GPU that is not there."""
    if size not in ("sd", "tiny") or device not in ("cuda", "cpu"):
        raise typer.BadParameter("--size is sd or tiny, --device is cuda or cpu")
    known: Size = "tiny" if size == "tiny" else "sd"
    if device != "cuda":
        return Machine(device, torch.float32, known)
    if not torch.cuda.is_available():
        raise typer.BadParameter(
            "--device: no cuda device is found here; give --size tiny --device cpu to try the script"
        )
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Machine(device, torch.bfloat16 if has_bf16 else torch.float16, known)


# ------------------------------------------------------------------------------------ networks
def _autoencoder(size: Size) -> Any:
    if size == "sd":
        return full_size.autoencoder()
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, **kinds)


def _unet(size: Size) -> Any:
    if size == "sd":
        return full_size.unet()
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def _text_encoder(size: Size) -> Any:
    if size == "sd":
        return full_size.text_encoder()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(**small))


def _small_decoder(size: Size) -> Any:
    widths = (64 if size == "sd" else 8,) * 4
    return AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)


def pipeline(where: Machine, kind: Any = DMPPipeline, **more: Any) -> Any:
    """A pipeline of diffusers' with all networks on the device. The vocabulary is the mini prior's."""
    parts = {
        name: where.built(partial(build, where.size))
        for name, build in (("vae", _autoencoder), ("unet", _unet), ("text_encoder", _text_encoder))
    }
    tokenizer = CLIPTokenizer.from_pretrained(str(manifest_path("priors", "mini") / "tokenizer"), model_max_length=77)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    made = kind(**parts, tokenizer=tokenizer, scheduler=scheduler, **more)
    made.set_progress_bar_config(disable=True)
    return made


# ---------------------------------------------------------------------------------------- work
def training_parts(where: Machine, batch: int) -> tuple[Any, MorphingLoss, list[nn.Parameter]]:
    """A U-Net with low-rank layers, the loss of random latents on the device, and the layers' parameters."""
    config = load_config("paper-practical").train
    assert isinstance(config, TrainConfig)
    config = config.model_copy(update={"mixed_precision": MODES[where.dtype], "batch_size": batch})
    base, unet = (made := pipeline(where)), made.unet
    side = where.side // 8
    columns = [
        LatentColumn(name, tuple(map(str, range(batch))), torch.randn(batch, 4, side, side), None)
        for name in ("image", "normal")
    ]
    pairs = LatentPairs(columns[0], columns[1], batch)
    loss_at = MorphingLoss(config, base, pairs, None, None, make_accelerator(config, where.device))
    add_lora(unet, config.lora.rank, config.lora.alpha, config.lora.targets, seed=0)
    unet.train()
    return unet, loss_at, list(dict(lora_parameters(unet)).values())


def training(where: Machine, batch: int, channels_last: bool, compiled: bool) -> tuple[Callable[[], Any], Any]:
    """A step as `dmp_core.methods.dmp.finetune` takes it: latents on the device, loss, gradient, clipping, AdamW."""
    unet, loss_at, layers = training_parts(where, batch)
    optimizer = torch.optim.AdamW(layers, lr=1e-4)
    if channels_last:
        unet.to(memory_format=torch.channels_last)

    def step() -> None:
        with where.autocast():
            loss = loss_at(unet, 0)
        loss.backward()
        nn.utils.clip_grad_norm_(layers, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    operations = tera(step) / batch  # before the blocks are compiled, which hides their operations
    if compiled:
        unet.compile_repeated_blocks()
    return step, lambda: operations


def prediction(where: Machine, batch: int, steps: int, small: bool, compiled: bool) -> tuple[Callable[[], Any], Any]:
    """From pixels to decoded pixels, without guidance."""
    base = pipeline(where)
    if small:
        base.use_decoder(where.built(partial(_small_decoder, where.size)))
    images = where.random(batch, 3, where.side, where.side, dtype=torch.float32)

    def run() -> Any:
        return base(images, num_inference_steps=steps, resolution="input", output_type="pt").images

    operations = tera(run) / batch
    if compiled:
        base.unet.compile_repeated_blocks()
    return run, lambda: operations


def synthesis(where: Machine, batch: int, steps: int, guidance: float) -> tuple[Callable[[], Any], Any]:
    """From captions to pixels; a batch is decoded image by image, as the stage does it."""
    made = pipeline(
        where, StableDiffusionPipeline, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    made.vae.enable_slicing()

    def run(number: int = steps) -> Any:
        return made(
            ["a bed"] * batch, height=where.side, width=where.side, num_inference_steps=number,
            guidance_scale=guidance, output_type="pt",
        ).images  # fmt: skip

    def operations() -> float:
        one, two = tera(partial(run, 1)), tera(partial(run, 2))
        return (one + (steps - 1) * (two - one)) / batch

    return run, operations


def labeler(where: Machine, batch: int, kind: str, dtype: torch.dtype) -> tuple[Callable[[], Any], Any]:
    """The network at the size that the paper preset gives it. Its weights are float32, as in the stage.

    dtype: of autocast; float32 is the preset's.
    """
    _network, call = LABELERS[kind](dataclasses.replace(where, dtype=torch.float32))

    @torch.inference_mode()
    def run() -> Any:
        with dataclasses.replace(where, dtype=dtype).autocast():
            return call(batch)

    return run, lambda: tera(run) / batch


def _eva02(where: Machine) -> tuple[nn.Module, Callable[[int], Any]]:
    from dmp_core.labelers.eva02 import Eva02Config, Eva02Segmenter

    small = {"window": 32, "stride": 21, "width": 16, "depth": 4, "heads": 2, "taps": (0, 1, 2, 3), "head_channels": 8}
    config = Eva02Config() if where.size == "sd" else Eva02Config(**small)  # type: ignore[arg-type]
    network = where.built(lambda: Eva02Segmenter(config))
    return network, lambda batch: network.slide(where.random(batch, 3, where.side, where.side))


def _omnidata(where: Machine) -> tuple[nn.Module, Callable[[int], Any]]:
    from dmp_core.labelers.omnidata import network as dpt

    network = where.built(lambda: dpt("v2"))
    return network, lambda batch: network(where.random(batch, 3, 384, 384))


def _zoedepth(where: Machine) -> tuple[nn.Module, Callable[[int], Any]]:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    config = ZoeDepthConfig()
    if where.size == "tiny":
        backbone = BeitConfig(
            image_size=64, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
            use_relative_position_bias=True, reshape_hidden_states=False,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = ZoeDepthConfig(
            backbone_config=backbone, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, bottleneck_features=16,
            num_attractors=[4, 3, 2, 1], num_relative_features=8, bin_embedding_dim=8,
        )  # fmt: skip
    network = where.built(lambda: ZoeDepthForDepthEstimation(config))
    return network, lambda batch: network(pixel_values=where.random(batch, 3, where.side, where.side))


def _pienet(where: Machine) -> tuple[nn.Module, Callable[[int], Any]]:
    from dmp_core.labelers.pienet import PIENet

    network = where.built(lambda: PIENet(width=64 if where.size == "sd" else 2))
    return network, lambda batch: network(where.random(batch, 3, where.side, where.side))


LABELERS = {"omnidata": _omnidata, "zoedepth": _zoedepth, "eva02": _eva02, "pienet": _pienet}


def labelers_of(size: Size) -> list[str]:
    """Kinds that there are at this size; Omnidata's network has a single one."""
    return [kind for kind in LABELERS if size == "sd" or kind != "omnidata"]


def works(where: Machine, compiled: bool) -> Iterator[Work]:
    """The rows, the most important first."""
    paper, full = load_config("paper"), where.size == "sd"
    train, predict, images = (8, 8, 16) if full else (2, 2, 2)
    ways = [("plain", False, False), ("channels-last", True, False)]
    for way, last, whole in [*ways, *([("channels-last, compiled", True, True)] if compiled else [])]:
        yield Work(f"training step, {way}", train, partial(_of(training), where, channels_last=last, compiled=whole))
    for steps in (1, 5):
        build = partial(_of(prediction), where, steps=steps, small=False, compiled=False)
        yield Work(f"prediction, steps: {steps}", predict, build)
    build = partial(_of(prediction), where, steps=1, small=True, compiled=False)
    yield Work("prediction, steps: 1, small decoder", predict, build)
    yield Work(
        "images, steps: 50, guided", images, partial(_of(synthesis), where, steps=50 if full else 3, guidance=7.5)
    )
    yield Work("images, steps: 1, not guided", images, partial(_of(synthesis), where, steps=1, guidance=0.0))
    labelers = {one.kind: one for name in paper.modalities if isinstance(one := paper.labeler(name), ModelLabels)}
    for kind in labelers_of(where.size):
        batch = labelers[kind].batch_size if full else 2
        for dtype in dict.fromkeys((torch.float32, where.dtype)):
            name = f"labels, {kind}, {str(dtype).removeprefix('torch.')}"
            yield Work(name, batch, partial(_of(labeler), where, kind=kind, dtype=dtype))
    if compiled:
        build = partial(_of(prediction), where, steps=5, small=False, compiled=True)
        yield Work("prediction, steps: 5, compiled", predict, build)
    if full and compiled:
        build = partial(_of(training), where, channels_last=True, compiled=True)
        yield Work("training step, channels-last, compiled, large batch", 32, build)


def _of(build: Callable[..., Any]) -> Callable[..., Any]:
    """The builder with the batch last, so that the rest can be given before."""
    return lambda where, batch, **options: build(where, batch, **options)


# ------------------------------------------------------------------------------------ measuring
def reason_of(error: Exception) -> str:
    """Its first line, for a cell of a table."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def measured(work: Work, where: Machine, repeats: int) -> Row:
    """The row of a piece of work, with half the batch as often as memory runs out."""
    batch = work.batch
    while True:
        try:
            return _measured(dataclasses.replace(work, batch=batch), where, repeats)
        except Exception as error:  # whatever fails, the other rows are worth having
            if not out_of_memory(error) or batch == 1:
                return Row(work.name, batch, failed=reason_of(error))
        batch //= 2
        release_memory()


def _measured(work: Work, where: Machine, repeats: int) -> Row:
    run, operations = work.build(work.batch)
    tflop = operations()
    for _ in range(2):  # compiles, and chooses kernels
        run()
    where.wait()
    if where.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = [seconds(run, where) for _ in range(repeats)]
    median = statistics.median(taken)
    peak = torch.cuda.max_memory_allocated() / 2**30 if where.device == "cuda" else None
    return Row(work.name, work.batch, median, (max(taken) - min(taken)) / median, tflop, peak)


def seconds(run: Callable[[], Any], where: Machine) -> float:
    where.wait()
    begun = time.perf_counter()
    run()
    where.wait()
    return time.perf_counter() - begun


def ceiling(where: Machine, repeats: int) -> float:
    """10¹² operations a second of the fastest of some large matrix products."""
    reached = 0.0
    for side in (4096, 8192) if where.device == "cuda" else (512,):
        one, other = (torch.randn(side, side, device=where.device).to(where.dtype) for _ in range(2))
        run = partial(_products, one, other)
        run()
        taken = statistics.median(seconds(run, where) for _ in range(repeats))
        reached = max(reached, 10 * 2 * side**3 / taken / 1e12)
    return reached


def _products(one: Tensor, other: Tensor) -> None:
    for _ in range(10):
        one @ other


# --------------------------------------------------------------------------------------- report
def report(where: Machine, rows: list[Row], top: float) -> dict[str, Any]:
    """All numbers, with the device's name and the date."""
    makers = makers_figures(where.name) if where.device == "cuda" else None
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "device": where.name,
        "size": where.size,
        "dtype": str(where.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "matmul_tflops": top,
        "makers_tflops": makers and makers[0],
        "rows": [
            dataclasses.asdict(row)
            | ({} if row.failed else {"per_second": row.per_second, "utilisation": row.reached / top})
            for row in rows
        ],
    }


def table(found: dict[str, Any]) -> str:
    makers = found["makers_tflops"]
    stated = f", {makers:.0f} by its maker" if makers else ""
    lines = [
        f"{found['date']}, {found['device']}, {found['dtype']}, torch {found['torch']}: matrix products reach "
        f"{found['matmul_tflops']:.3g} TFLOP/s{stated}.",
        "",
        "| | batch | samples/s | spread, % | TFLOP per sample | of the matrix products, % | peak, GiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        if row["failed"]:
            lines.append(f"| {row['name']} | {row['batch'] or ''} | {row['failed'].replace('|', '/')} | | | | |")
            continue
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        lines.append(
            f"| {row['name']} | {row['batch']} | {row['per_second']:.3g} | {100 * row['spread']:.0f} "
            f"| {row['tflop']:.3g} | {100 * row['utilisation']:.1f} | {peak} |"
        )
    return "\n".join(lines) + "\n"


def main(
    size: Annotated[str, typer.Option(help="sd, or tiny to prove the script.")] = "sd",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs per row.")] = 5,
    limit: Annotated[float, typer.Option(help="Seconds after which no further row is begun.")] = 390.0,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Also the compiled rows.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write all numbers to this JSON file.")] = None,
    write: Annotated[
        bool, typer.Option(help=f"Put the table into docs/performance.md, the numbers into {STORED}.")
    ] = False,
) -> None:
    begun, where = time.monotonic(), machine(device, size)
    top, rows = ceiling(where, repeats), []
    for work in works(where, compiled):
        late = time.monotonic() - begun > limit
        rows.append(Row(work.name, failed="no time left") if late else measured(work, where, repeats))
        release_memory()
        found = report(where, rows, top)
        for file in filter(None, (out, ROOT / STORED if write else None)):  # after each row: a machine may be lost
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found, indent=1) + "\n")
        typer.echo(f"{work.name}: {rows[-1].failed or f'{rows[-1].per_second:.3g} samples/s'}", err=True)
    typer.echo(table(found))
    if write:
        fill("docs/performance.md", "gpu", table(found))


if __name__ == "__main__":
    typer.run(main)
