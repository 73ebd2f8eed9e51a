"""Every adversarial method learns, resumes after being killed, and predicts deterministically."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dmp_core.errors import InputError
from dmp_core.methods.drit.algorithm import DritModel, _DritTrainer, fit_drit
from dmp_core.methods.drit.settings import DritConfig
from dmp_core.methods.shared.adversarial import AdversarialTrainer, Translator
from dmp_core.methods.shared.settings import AdversarialConfig
from dmp_core.methods.spade.algorithm import SpadeModel, _SpadeTrainer, fit_spade
from dmp_core.methods.spade.settings import SpadeConfig
from dmp_core.training.logs import read_log
from dmp_core.training.pairs import ImagePairs
from tests.methods.shapes import constant_error, error, shapes

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Method:
    fit: Callable[..., None]
    model: type[Translator]
    trainer: type[AdversarialTrainer]
    settings: AdversarialConfig
    """Enough to learn the shapes."""

    @property
    def short(self) -> AdversarialConfig:
        return self.settings.model_copy(update={"steps": 8, "batch_size": 3, "checkpoint_every": 3})


METHODS = {
    "spade": Method(
        fit_spade,
        SpadeModel,
        _SpadeTrainer,
        SpadeConfig(
            steps=150,
            batch_size=8,
            channels=4,
            upsamplings=2,
            hidden_channels=8,
            discriminator_channels=8,
            discriminator_layers=2,
            generator_learning_rate=1e-3,
            discriminator_learning_rate=4e-3,
        ),
    ),
    "drit": Method(
        fit_drit,
        DritModel,
        _DritTrainer,
        DritConfig(
            steps=150,
            batch_size=8,
            learning_rate=4e-3,
            content_learning_rate=4e-4,
            content_updates=1,
            content_noise=0.0,
            channels=6,
            residual_blocks=1,
            discriminator_channels=8,
            discriminator_layers=3,
            discriminator_scales=1,
            cross_cycle=5.0,
            self_reconstruction=5.0,
            latent_regression=1.0,
            mode_seeking=0.1,
        ),
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@dataclass(frozen=True)
class Fitted:
    method: Method
    work: Path
    train: ImagePairs

    @property
    def model(self) -> Translator:
        return self.method.model.load(self.work / "model")


@pytest.fixture(scope="module", params=METHODS)
def fitted(request, tmp_path_factory) -> Fitted:
    method, work, train = METHODS[request.param], tmp_path_factory.mktemp(request.param), shapes(64)
    method.fit(train, method.settings, work)
    return Fitted(method, work, train)


# ---------------------------------------------------------------------------------- learning
@pytest.mark.slow
def test_it_learns(fitted):
    losses = [row.loss for row in read_log(fitted.work / "loss.csv")]
    assert [row.step for row in read_log(fitted.work / "loss.csv")] == list(range(1, fitted.method.settings.steps + 1))
    tenth = len(losses) // 10
    assert np.mean(losses[-tenth:]) < 0.8 * np.mean(losses[:tenth])
    held_out = shapes(32, seed=1)
    assert error(fitted.model, held_out) < 0.75 * constant_error(fitted.train, held_out)


def test_inference_is_deterministic(fitted):
    x, _ = shapes(6, seed=2).batch(0, 6, 0, False)
    first, second = fitted.model, fitted.model
    torch.manual_seed(1)
    labels = first(x)
    torch.manual_seed(2)
    assert torch.equal(first(x), labels)
    assert torch.equal(second(x), labels)
    assert labels.abs().max() <= 1
    assert not labels.requires_grad
    # No statistic of the batch: a single image gets the same label as in a batch.
    assert torch.allclose(torch.cat([first(image[None]) for image in x]), labels, atol=1e-5)


def test_images_of_any_size_are_translated(fitted):
    x, _ = shapes(2, size=24, seed=3).batch(0, 2, 0, False)
    assert fitted.model(x[..., :19, :21]).shape == (2, 3, 19, 21)


def test_a_finished_fit_only_writes_its_model_again(fitted):
    before = load_file(fitted.work / "model" / "model.safetensors")
    (fitted.work / "model" / "model.safetensors").unlink()
    calls: list[int] = []
    fitted.method.fit(
        fitted.train, fitted.method.settings, fitted.work, progress=lambda done, total, message="": calls.append(done)
    )
    assert not calls
    assert_same(load_file(fitted.work / "model" / "model.safetensors"), before)


@every_method
def test_every_weight_is_reached_by_its_own_side_only(method):
    trainer = method.trainer(method.short, shapes(8), "cpu")
    reached: dict[str, set[int]] = {}
    for side, optimizer in trainer.optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.step = lambda side=side, parameters=parameters: reached.setdefault(side, set()).update(  # type: ignore
            id(p) for p in parameters if p.grad is not None and p.grad.any()
        )
    trainer.step(0)
    sides = {
        side: {id(p) for group in optimizer.param_groups for p in group["params"]}
        for side, optimizer in trainer.optimizers.items()
    }
    assert reached == sides
    everything = {id(p) for p in trainer.networks.parameters()}
    assert set.union(*sides.values()) == everything
    assert sum(map(len, sides.values())) == len(everything)


@every_method
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(method):
    trainer = method.trainer(method.short, shapes(8), "cpu")
    weight = trainer.optimizers["generator"].param_groups[0]["params"][0]
    before = weight.detach().clone()
    root = (weight * 0).sqrt().sum()  # 0, with an infinite slope
    with pytest.raises(InputError, match=r"generator's gradient is nan"):
        trainer.update("generator", root)
    assert torch.equal(weight, before)


def poison_free_memory() -> None:
    """Values that a kernel does not write are infinite."""
    [torch.full((2**power,), torch.inf) for power in range(4, 20) for _ in range(4)]


@every_method
def test_mixed_precision_keeps_weights_and_losses_in_full_precision(method):
    poison_free_memory()
    trainer = method.trainer(method.short.model_copy(update={"mixed_precision": "bf16"}), shapes(8), "cpu")
    losses = [trainer.step(step)[0] for step in range(2)]
    assert all(loss.isfinite() for loss in losses)
    full = method.trainer(method.short, shapes(8), "cpu").step(0)[0]
    assert losses[0].item() == pytest.approx(full.item(), rel=0.05)
    assert {p.dtype for p in trainer.networks.parameters()} == {torch.float32}


# ---------------------------------------------------------------------------------- resuming
def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.e2e
@pytest.mark.parametrize("name", METHODS)
def test_a_killed_fit_resumes_to_the_same_weights(name, tmp_path):
    """SIGKILL in the middle of a real process, after a checkpoint but not at one."""
    method = METHODS[name]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.methods.fit_in_process", name, str(tmp_path / "killed")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "4":
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()
    random = torch.get_rng_state()
    for folder in ("killed", "whole"):
        method.fit(shapes(8), method.short, tmp_path / folder)
    assert torch.equal(torch.get_rng_state(), random), "the caller's random state was touched"
    killed, whole = (tmp_path / folder for folder in ("killed", "whole"))
    assert_same(*(load_file(folder / "model" / "model.safetensors") for folder in (killed, whole)))
    killed_log, whole_log = ([row[:4] for row in read_log(folder / "loss.csv")] for folder in (killed, whole))
    assert killed_log == whole_log


@every_method
def test_a_terminated_fit_saves_its_last_step_first(method, tmp_path):
    def end(*_):
        raise KeyboardInterrupt

    def terminate(done, total, message=""):
        if done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            method.fit(shapes(8), method.short, tmp_path, progress=terminate)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


@every_method
def test_checkpoints_of_another_run_are_refused(method, tmp_path):
    once = method.short.model_copy(update={"steps": 1})
    method.fit(shapes(4), once, tmp_path)
    with pytest.raises(InputError, match="another training run"):
        method.fit(shapes(4), once.model_copy(update={"seed": 1}), tmp_path)
    with pytest.raises(InputError, match="another training run"):
        method.fit(shapes(4, seed=1), once, tmp_path)


# ------------------------------------------------------------------------------------ faults
@every_method
def test_an_infinite_loss_stops_the_fit(method, tmp_path):
    pairs = shapes(8)
    pairs.targets[:] = np.nan
    with pytest.raises(InputError, match=r"loss is nan.*lower its learning rate"):
        method.fit(pairs, method.short, tmp_path)
    assert not (tmp_path / "model").exists()


@every_method
def test_a_size_that_does_not_fit_is_refused(method, tmp_path):
    with pytest.raises(InputError, match=r"18 × 18 pixels.*multiples of 4"):
        method.fit(shapes(4, size=18), method.short, tmp_path)


@every_method
def test_a_folder_without_a_finished_model_is_refused(method, tmp_path):
    with pytest.raises(InputError, match="not a finished"):
        method.model.load(tmp_path)
    method.model(method.short).save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="not a finished"):
        method.model.load(tmp_path)


def test_a_model_of_another_method_is_refused(tmp_path):
    SpadeModel(METHODS["spade"].short).save(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'spade'; expected 'drit'"):
        DritModel.load(tmp_path)
