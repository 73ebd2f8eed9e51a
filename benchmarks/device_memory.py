"""Peak memory of the device for every kind of artefact of the paper preset, counted without a device.

    .venv/bin/python -m benchmarks.device_memory [--preset paper] [--write]

The networks are built at full size on fake tensors, which have a shape and a type and no content, and are run as the
stages run them; every allocation is counted. cuDNN's workspaces and the device's context
come in addition, about 1 GB. --write puts the table into docs/paper_rehearsal.md; `vram_gb` in
data_manifests/models.yaml states the same numbers, which tests/benchmarks/test_device_memory.py compares.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks import full_size
from dmp_core.config import PipelineConfig, load_config
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.labelers.common import DTYPES
from dmp_core.labelers.settings import ModelLabels
from dmp_core.synthesis.diffusion import first_batch_size
from dmp_core.weights.load import DTYPES as MIXED
from docs.writing.documents import fill

GIB = 2**30
DEVICE = "cpu"
"""Of the fake tensors, which have no content on any device; autograd would ask a GPU for its context."""


@dataclass(frozen=True)
class Peak:
    """Of one kind of artefact, in bytes."""

    artefact: str
    model: str
    """Its id in the registry."""
    batch: int
    dtype: str
    weights: int
    total: int


class Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors that exist on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type == DEVICE:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        size = storage.nbytes()
        self.known[storage] = size
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size


@contextmanager
def fake(dtype: torch.dtype = torch.float32, grad: bool = False) -> Iterator[Allocations]:
    """New tensors are on the device, in `dtype`, have no content, and are counted. Attention is a fused kernel."""
    before, attention = torch.get_default_dtype(), F.scaled_dot_product_attention
    torch.set_default_dtype(dtype)
    F.scaled_dot_product_attention = _fused_attention
    counted = Allocations()
    try:
        with _fake_mode(), counted, torch.device(DEVICE), nullcontext() if grad else torch.no_grad():
            yield counted
    finally:
        torch.set_default_dtype(before)
        F.scaled_dot_product_attention = attention


@cache
def _fake_mode() -> FakeTensorMode:
    """Only one: libraries keep small tensors between calls, which belong to it."""
    return FakeTensorMode()


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any) -> Tensor:
    """Without a device, torch would choose the way that keeps a matrix of all pairs."""
    query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    made: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled()
    )[0]
    return made


def on_device(build: Callable[[], Any]) -> Any:
    """A network whose weights are on the device; some cannot be built there without content."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), torch.device("meta"):
        network = build()
    shared: dict[Tensor, Tensor] = {}
    for module in network.modules():
        for known in (module._parameters, module._buffers):
            for name, tensor in known.items():
                if tensor is not None and tensor not in shared:
                    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
                    learns = isinstance(tensor, nn.Parameter)
                    shared[tensor] = nn.Parameter(made, tensor.requires_grad) if learns else made
                known[name] = shared.get(tensor)
    return network


def labels(config: PipelineConfig, name: str) -> Peak:
    """Networks have float32 weights, and autocast for another `dtype`."""
    labeler = config.labeler(name)
    assert isinstance(labeler, ModelLabels)
    batch, dtype = labeler.batch_size, DTYPES[labeler.dtype]
    side = config.images.resolution
    with fake() as memory:
        network, run = LABELERS[labeler.kind](batch, side, labeler.options)
        network.eval().requires_grad_(False)
        weights = memory.now
        with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
            run()
    return Peak(f"labels/{name}", labeler.weights, batch, labeler.dtype, weights, memory.most)


def _omnidata(batch: int, side: int, options: dict[str, Any]) -> tuple[nn.Module, Callable[[], Any]]:
    from dmp_core.labelers.omnidata import network

    size = int(options.get("size", 384))
    dpt = on_device(lambda: network("v2"))
    return dpt, lambda: dpt(torch.rand(batch, 3, size, size))


def _eva02(batch: int, side: int, options: dict[str, Any]) -> tuple[nn.Module, Callable[[], Any]]:
    from dmp_core.labelers.eva02 import Eva02Config, Eva02Segmenter, class_map

    network = on_device(lambda: Eva02Segmenter(Eva02Config()))
    window = network.config.window
    return network, lambda: class_map(network.slide(torch.rand(min(batch, 8), 3, window, window)), (side, side))


def _zoedepth(batch: int, side: int, options: dict[str, Any]) -> tuple[nn.Module, Callable[[], Any]]:
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation

    network = on_device(lambda: ZoeDepthForDepthEstimation(ZoeDepthConfig()))
    # A square image with margins, its sides scaled by the factor nearer to 1 of those for 384 × 512.
    return network, lambda: network(pixel_values=torch.rand(batch, 3, 512, 512))


def _pienet(batch: int, side: int, options: dict[str, Any]) -> tuple[nn.Module, Callable[[], Any]]:
    from dmp_core.labelers.pienet import PIENet, stretch

    network = on_device(lambda: PIENet(options.get("batch_independent", True)))

    def run() -> Any:
        outputs = network(torch.rand(batch, 3, side, side))
        cut = torch.cat([outputs["reflectance"], outputs["shading"]], 1).float()
        return stretch(cut[:, :3]), stretch(cut[:, 3:])

    return network, run


LABELERS = {"omnidata": _omnidata, "eva02": _eva02, "zoedepth": _zoedepth, "pienet": _pienet}


# -------------------------------------------------------------------------------- Stable Diffusion
def _parts(side: int) -> tuple[Any, Any, int]:
    """VAE, U-Net and side of the latents of Stable Diffusion v1."""
    return on_device(full_size.autoencoder), on_device(full_size.unet), side // 8


def images(config: PipelineConfig) -> Peak:
    side = config.images.resolution
    batch = first_batch_size("cuda", side)
    with fake(torch.float16) as memory:
        vae, unet, latent = _parts(side)
        _kept = on_device(full_size.text_encoder), on_device(full_size.safety_checker)
        vae.enable_slicing()
        weights = memory.now

        def run() -> None:
            latents = torch.rand(batch, 4, latent, latent)
            for _ in range(2):
                text = torch.rand(2 * batch, 77, 768)
                without, with_text = unet(torch.cat([latents] * 2), 1, encoder_hidden_states=text).sample.chunk(2)
                latents = latents + with_text - without
            vae.decode(latents)

        run()
    return Peak("images", "stable-diffusion-v1-4", batch, "float16", weights, memory.most)


def latents(config: PipelineConfig) -> Peak:
    batch, side = config.latents.batch_size, config.images.resolution
    with fake() as memory:
        vae = on_device(full_size.autoencoder)
        weights = memory.now
        vae.encode(torch.rand(batch, 3, side, side)).latent_dist.mode()
    return Peak("latents", "stable-diffusion-v1-4", batch, "float32", weights, memory.most)


def ceiling(config: PipelineConfig) -> Peak:
    """The label through the VAE, for the row of that name."""
    side = config.images.resolution
    batch = SamplingConfig().batch_size
    with fake() as memory:
        vae = on_device(full_size.autoencoder)
        weights = memory.now
        vae.decode(vae.encode(torch.rand(batch, 3, side, side)).latent_dist.mode()).sample.float() * 2
    return Peak("predict (ceiling)", "stable-diffusion-v1-4", batch, "float32", weights, memory.most)


def predict(config: PipelineConfig) -> Peak:
    sampling, side = config.sampling, config.images.resolution
    batch = sampling.batch_size
    guided = sampling.use_prompt and sampling.guidance_scale != 1
    with fake(DTYPES[sampling.dtype]) as memory:
        vae, unet, _ = _parts(side)
        _kept = on_device(full_size.text_encoder)
        weights = memory.now

        def run() -> None:
            x = vae.encode(torch.rand(batch, 3, side, side)).latent_dist.mode()
            y = x
            for _ in range(2):
                twice = torch.cat([y] * (2 if guided else 1))
                text = torch.rand(len(twice), 77, 768)
                y = y + unet(twice, 1, encoder_hidden_states=text).sample[:batch]
            vae.decode(y).sample.float() * 2 - 1

        run()
    return Peak("predict", "stable-diffusion-v1-4", batch, sampling.dtype, weights, memory.most)


def train(config: PipelineConfig) -> Peak:
    """A LoRA step: frozen weights in the training's precision, gradients and Adam's moments of the layers alone."""
    from dmp_core.diffusion import add_lora, lora_parameters

    settings: Any = config.train
    batch, side, precision = settings.batch_size, config.images.resolution, MIXED[settings.mixed_precision]
    decoded = settings.loss == "decoded"
    with fake(precision, grad=True) as memory:
        lora, latent = settings.lora, side // 8
        vae = on_device(full_size.autoencoder).requires_grad_(False)
        _kept = on_device(full_size.text_encoder)
        unet = on_device(lambda: add_lora(full_size.unet(), lora.rank, lora.alpha, lora.targets, seed=0)).train()
        layers = dict(lora_parameters(unet))
        optimizer = torch.optim.AdamW(layers.values(), lr=1e-4)
        weights = memory.now

        def run() -> None:
            for _ in range(2):
                y = torch.rand(batch, 4, latent, latent, dtype=precision)
                text = torch.rand(batch, 77, 768, dtype=precision)
                with torch.autocast(DEVICE, precision, enabled=precision != torch.float32):
                    output = unet(y, 1, encoder_hidden_states=text).sample.float()
                    loss = (vae.decode(output.to(precision)).sample if decoded else output).float().square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        run()
    return Peak("train", "stable-diffusion-v1-4", batch, settings.mixed_precision, weights, memory.most)


def prompts(config: PipelineConfig) -> Peak:
    """bloomz-7b1 in transformers, one step at full length. vLLM takes `gpu_memory_utilization` of the card instead."""
    from transformers import BloomConfig, BloomForCausalLM

    from dmp_core.prompts.settings import TransformersPrompts

    batch = TransformersPrompts(model="any").batch_size
    generator: Any = config.prompts.generator
    shape = {"vocab_size": 250880, "hidden_size": 4096, "n_layer": 30, "n_head": 32}
    tokens = 60 + generator.max_new_tokens
    with fake(torch.float16) as memory:
        network = on_device(lambda: BloomForCausalLM(BloomConfig(**shape)))
        weights = memory.now

        def run() -> Tensor:
            past = network.transformer(torch.zeros(1, tokens, dtype=torch.int64), use_cache=True).past_key_values
            past.batch_repeat_interleave(batch)
            last = torch.zeros(batch, 1, dtype=torch.int64)
            scores = network(last, past_key_values=past, use_cache=True).logits[:, -1].float()
            return scores.double().softmax(-1).cumsum(-1)

        run()
    return Peak("prompts", "bloomz-7b1", batch, "float16", weights, memory.most)


def peaks(config: PipelineConfig) -> Iterator[Peak]:
    """One row per kind of artefact that uses a device."""
    yield prompts(config)
    yield images(config)
    for name in config.modalities:
        yield labels(config, name)
    yield latents(config)
    yield train(config)
    yield predict(config)
    yield ceiling(config)


def operations() -> dict[str, float]:
    """10¹² operations per image of 512 x 512 pixels, by the names of `dmp_core.stages.estimate.OPERATIONS`."""
    from torch.utils.flop_counter import FlopCounterMode

    def count(run: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() / 1e12

    found = {}
    for name, build in LABELERS.items():
        with fake():
            network, run = build(1, 512, {"size": 512})
            network.eval().requires_grad_(False)
            found[name] = count(run)
    with fake():
        vae, unet, side = _parts(512)
        latent, text = torch.rand(1, 4, side, side), torch.rand(1, 77, 768)
        found["unet"] = count(lambda: unet(latent, 1, encoder_hidden_states=text))
        found["encode"] = count(lambda: vae.encode(torch.rand(1, 3, 512, 512)))
        found["decode"] = count(lambda: vae.decode(latent))
        found["small decode"] = count(lambda: on_device(AutoencoderTiny).decode(latent))
    with fake(grad=True):
        from dmp_core.diffusion import add_lora

        unet = on_device(lambda: add_lora(full_size.unet(), 4, None, "attention", seed=0)).train()
        latent, text = torch.rand(1, 4, 64, 64), torch.rand(1, 77, 768)
        found["step"] = count(lambda: unet(latent, 1, encoder_hidden_states=text).sample.mean().backward())
    return found


def markdown(rows: list[Peak]) -> str:
    lines = ["| artefact | model | batch | precision | weights | peak |", "|---|---|---|---|---|---|"]
    for row in rows:
        sizes = f"{row.weights / GIB:.1f} GiB | {row.total / GIB:.1f} GiB"
        lines.append(f"| {row.artefact} | {row.model} | {row.batch} | {row.dtype} | {sizes} |")
    return "\n".join(lines) + "\n"


def main(preset: str = "paper", write: bool = False) -> None:
    table = markdown(list(peaks(load_config(preset))))
    typer.echo(table)
    if write:
        fill("docs/paper_rehearsal.md", "device-memory", table)


if __name__ == "__main__":
    typer.run(main)
