"""Faster kernels give the same results, and bfloat16 is only used where the processor supports it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.training import precision
from dmp_core.training.precision import fast_kernels, without_emulated_bf16

BF16 = TrainConfig(mixed_precision="bf16")


@pytest.mark.parametrize(("positions", "stepwise"), [(16, True), (4096, False)])
def test_faster_kernels_differ_by_rounding(tiny_base, positions, stepwise):
    """The same networks, outputs and gradients; large images keep the attention that saves memory."""
    latents, t, text = torch.randn(2, 4, 4, 4), torch.tensor([7, 999]), tiny_base.encode_prompt("").expand(2, -1, -1)

    def results() -> tuple[torch.Tensor, torch.Tensor]:
        x = latents.clone().requires_grad_()
        out = tiny_base.vae.decode(tiny_base.unet(x, t, text).sample).sample
        return out, torch.autograd.grad(out.square().mean(), x)[0]

    before = results()
    with fast_kernels((tiny_base.unet, tiny_base.vae), "cpu", torch.bfloat16, positions):
        processors = [p for part in (tiny_base.unet, tiny_base.vae) for p in part.attn_processors.values()]
        assert all(isinstance(processor, AttnProcessor) == stepwise for processor in processors)
        for new, old in zip(results(), before, strict=True):
            torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(new, old) for new, old in zip(results(), before, strict=True))


def test_emulated_bfloat16_is_replaced_by_full_precision(monkeypatch):
    monkeypatch.setattr(precision, "_processor_has_bf16", lambda: False)
    assert without_emulated_bf16(BF16, "cpu").mixed_precision == "no"
    assert without_emulated_bf16(BF16, "cuda") is BF16
    monkeypatch.setattr(precision, "_processor_has_bf16", lambda: True)
    assert without_emulated_bf16(BF16, "cpu") is BF16


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's allocator")
def test_freed_memory_is_used_again():
    """Page faults show it: 64 tensors of 4 MB are 65,536 pages of 4 kB, fetched for the first round and not again."""
    program = """
import resource, torch
from dmp_core.training.precision import keep_freed_memory
keep_freed_memory()
for round in range(5):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(2**20) for _ in range(64)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(ran.stdout) < 65536 / 2
