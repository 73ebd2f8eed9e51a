"""A training step on a GPU waits for nothing: run on the meta device, which has shapes and no values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dmp_core.diffusion import add_lora, lora_parameters
from dmp_core.methods.dmp.finetune import MorphingLoss
from dmp_core.training.loop import _Run, make_accelerator
from dmp_core.training.optimisation import make_optimizer
from dmp_core.training.transfer import to_device
from tests.training.conftest import toy_labels, toy_pairs
from tests.training.test_finetune import CONFIG

GPU = torch.device("meta")
aten = torch.ops.aten


class Waits(TorchDispatchMode):
    """Records copies between host and device that the host waits for. Reading a value is an error: there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pinned: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._pin_memory.default:  # without a GPU there is no pinned memory
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        result = func(*args, **kwargs)
        if func in (aten._to_copy.default, aten.copy_.default):
            source, target = (args[1], args[0]) if func is aten.copy_.default else (args[0], result)
            from_pinned = any(source is tensor for tensor in self.pinned)
            if source.device != target.device and not (kwargs.get("non_blocking") and from_pinned):
                self.found.append(f"{source.device} → {target.device} {tuple(source.shape)}")
        return result


@pytest.mark.parametrize(
    "change",
    [{}, {"use_prompt": True}, {"num_timesteps": 1}, {"gradient_accumulation": 2}, {"loss": "decoded"}],
    ids=str,
)
def test_a_training_step_waits_for_nothing(change: dict[str, Any], tiny_base: Any, tmp_path: Any) -> None:
    config = CONFIG.model_copy(update=change)
    accelerator = make_accelerator(config, "cpu")
    accelerator.device_placement = False
    pairs, unet = toy_pairs(), tiny_base.unet
    add_lora(unet, 4, None, "all", seed=0)
    unet.to(GPU)
    run = _Run(config, unet, dict(lora_parameters(unet)), lambda *_: torch.zeros(()), tmp_path, "", accelerator)
    accelerator.state.device = GPU
    labels = toy_labels(16, 16) if config.reads_labels else None
    run.loss_at = MorphingLoss(config, tiny_base, pairs, [f"room {key}" for key in pairs.keys], labels, accelerator)
    run.step = 1  # the first one checks once that every gradient arrives
    with Waits() as waits:
        run.advance()
        run.advance()
    assert waits.found == []
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        run.read()


def test_waiting_is_seen() -> None:
    with Waits() as waits:
        host = torch.zeros(3)
        to_device(host, GPU)
        assert waits.found == []
        host.to(GPU)
        host.to(GPU, non_blocking=True)  # not from pinned memory
        assert len(waits.found) == 2
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.zeros(3, device=GPU).any())


def test_the_optimiser_is_told_to_skip_a_step_without_waiting() -> None:
    """Fake tensors know a device's kernels, here CUDA's fused AdamW, and have no values either."""
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.zeros(4, device="cuda"))
        optimizer = make_optimizer(CONFIG, [weight])
        weight.grad = torch.ones(4, device="cuda")
        optimizer.found_inf = torch.zeros((), device="cuda")
        optimizer.step()
    assert optimizer.defaults["fused"]
