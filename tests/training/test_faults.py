"""Training with NaN, damaged files and full disks: nothing invalid is saved, and intact checkpoints are used."""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmp_core.errors import InputError
from dmp_core.finite import check_before_writing, find_non_finite
from dmp_core.methods.dmp import finetune as dmp
from dmp_core.methods.shared import adversarial
from dmp_core.prior import loop as prior
from dmp_core.prior.config import TrainingConfig
from dmp_core.training.checkpoints import load_checkpoint, save_checkpoint
from dmp_core.training.logs import StepRecord, TrainingLog, read_log
from dmp_core.training.loop import fit, make_accelerator
from dmp_core.training.settings import FitConfig
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.methods.shapes import shapes
from tests.training.conftest import toy_pairs
from tests.training.test_finetune import CONFIG, assert_same_weights

LINE = FitConfig(steps=8, batch_size=1, checkpoint_every=2, log_every=4, learning_rate=0.05, lr_schedule="constant")
WRONG_AT = 5
"""Number of the draw, which is the sixth step: after the checkpoint of the fourth."""


def infinite_slope(parameter: Tensor) -> Tensor:
    """0, with a gradient of NaN."""
    return (parameter * 0).sum().sqrt()


# --------------------------------------------------------------------- three loops, one behaviour
Run = Callable[[Path, int | None], dict[str, Tensor]]
"""(work folder, draw whose gradient is NaN) → the fitted weights."""


def seeded(draw: int) -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(draw))


def fit_line(work: Path, wrong_at: int | None = None) -> dict[str, Tensor]:
    network = nn.Linear(3, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)

    def loss_at(net: Any, draw: int) -> Tensor:
        x = seeded(draw)
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
        return loss + infinite_slope(network.weight) if draw == wrong_at else loss

    fit(LINE, network, dict(network.named_parameters()), loss_at, work, "line", make_accelerator(LINE, "cpu"))
    return network.state_dict()


class _Pair(adversarial.AdversarialTrainer):
    """A generator alone, which is enough for the training loop."""

    def __init__(self, config: adversarial.AdversarialConfig, wrong_at: int | None) -> None:
        super().__init__(config, shapes(4), "cpu")
        self.wrong_at = wrong_at
        self.networks = adversarial.build_networks(0, lambda: {"model": nn.Linear(3, 1)})
        self.optimizers = {"generator": adversarial.adam(list(self.networks.parameters()), 0.05, (0.5, 0.9))}

    def step(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        x, model = seeded(step), self.networks["model"]
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        if step == self.wrong_at:
            loss = loss + infinite_slope(model.weight)
        return loss.detach(), self.update("generator", loss), {}


def fit_adversarial(work: Path, wrong_at: int | None = None) -> dict[str, Tensor]:
    trainer = _Pair(adversarial.AdversarialConfig(steps=8, batch_size=1, checkpoint_every=2, log_every=4), wrong_at)
    adversarial.run(trainer, "pair", work, lambda *_: None)
    return trainer.networks.state_dict()


def fit_prior(work: Path, wrong_at: int | None = None) -> dict[str, Tensor]:
    network = nn.Linear(3, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    config = TrainingConfig(steps=8, checkpoint_every=2, log_every=2, warmup_steps=0, bf16=False, minutes=None)

    def loss_at(step: int, share: slice) -> dict[str, Tensor]:
        x = seeded(step)[share]
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        return {"loss": loss + infinite_slope(network.weight) if step == wrong_at else loss}

    return prior.fit({"line": network}, loss_at, config, work)["line"]


LOOPS: dict[str, Run] = {"fit": fit_line, "adversarial": fit_adversarial, "prior": fit_prior}
every_loop = pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def checkpoints(work: Path) -> list[Path]:
    return sorted((work / "checkpoints").iterdir())


@every_loop
def test_a_gradient_that_is_not_finite_stops_the_run_and_the_next_one_ends_with_the_same_weights(run: Run, tmp_path):
    with pytest.raises(InputError, match=r"gradient is nan.*Checkpoints are kept"):
        run(tmp_path / "hurt", WRONG_AT)
    kept = checkpoints(tmp_path / "hurt")
    assert [path.name for path in kept] == ["step-00000002", "step-00000004"]
    assert all(find_non_finite(torch.load(path / "state.pt", weights_only=True)) is None for path in kept)
    assert_same(run(tmp_path / "hurt", None), run(tmp_path / "whole", None))


def flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def nan_weight(file: Path, rng: random.Random) -> None:
    """As saved by an older version: readable, and with its digest."""
    state = torch.load(file, weights_only=True)
    weights = state.get("weights") or state.get("networks") or state["modules"]["line"]
    next(iter(weights.values())).view(-1)[0] = torch.nan
    torch.save(state, file)
    file.with_name("state.sha256").unlink()


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "bit": flip,
    "bit of the digest": lambda file, rng: flip(file.with_name("state.sha256"), rng),
    "truncated": lambda file, rng: file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)]),
    "empty": lambda file, rng: file.write_bytes(b""),
    "zeros": lambda file, rng: file.write_bytes(bytes(file.stat().st_size)),
    "gone": lambda file, rng: file.unlink(),
    "NaN": nan_weight,
}


@every_loop
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_for_the_older_one(run: Run, damage: str, tmp_path, caplog):
    with pytest.raises(InputError, match="gradient is nan"):
        run(tmp_path / "hurt", WRONG_AT)
    DAMAGE[damage](checkpoints(tmp_path / "hurt")[-1] / "state.pt", random.Random(damage))
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path / "hurt", None)
    assert "step-00000004" in caplog.text
    assert "damaged and skipped" in caplog.text
    assert "from the beginning" not in caplog.text
    assert_same(found, run(tmp_path / "whole", None))


@every_loop
def test_without_any_good_checkpoint_training_starts_from_the_beginning(run: Run, tmp_path, caplog):
    with pytest.raises(InputError, match="gradient is nan"):
        run(tmp_path / "hurt", WRONG_AT)
    for path in checkpoints(tmp_path / "hurt"):
        flip(path / "state.pt", random.Random(path.name))
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path / "hurt", None)
    assert "training starts from the beginning" in caplog.text
    assert_same(found, run(tmp_path / "whole", None))


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe\x00", b"step,loss\n1,x\n", b"step,loss,learning_rate,grad_norm,seconds\n"]
)
@pytest.mark.parametrize("run", [fit_line, fit_adversarial])
def test_a_damaged_log_is_written_again_from_the_checkpoint(run: Run, damage: bytes, tmp_path):
    with pytest.raises(InputError, match="gradient is nan"):
        run(tmp_path / "hurt", WRONG_AT)
    (tmp_path / "hurt" / "loss.csv").write_bytes(damage)
    for folder in ("hurt", "whole"):
        run(tmp_path / folder, None)
    hurt, whole = ([row[:4] for row in read_log(tmp_path / folder / "loss.csv")] for folder in ("hurt", "whole"))
    assert hurt == whole
    assert [row[0] for row in hurt] == list(range(1, 9))


def test_the_log_of_a_prior_that_was_stopped_has_every_step_once(tmp_path):
    with pytest.raises(InputError, match="gradient is nan"):
        fit_prior(tmp_path, WRONG_AT)
    with (tmp_path / "log.csv").open("a") as log:
        log.write("6,0.1,0.")  # by a process that died after the checkpoint
    fit_prior(tmp_path)
    steps = [line.partition(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert steps == ["step", "2", "4", "6", "8"]


def test_a_prior_resumes_from_the_single_checkpoint_of_older_versions(tmp_path):
    with pytest.raises(InputError, match="gradient is nan"):
        fit_prior(tmp_path / "old", WRONG_AT)
    state = torch.load(checkpoints(tmp_path / "old")[-1] / "state.pt", weights_only=True)
    torch.save({name: part for name, part in state.items() if name not in ("identity", "log")}, tmp_path / "old.pt")
    shutil.rmtree(tmp_path / "old" / "checkpoints")
    (tmp_path / "old.pt").rename(tmp_path / "old" / "checkpoint.pt")
    assert_same(fit_prior(tmp_path / "old"), fit_prior(tmp_path / "whole"))
    assert len(checkpoints(tmp_path / "old")) == 2
    fit_prior(tmp_path / "old")
    steps = [line.partition(",")[0] for line in (tmp_path / "old" / "log.csv").read_text().splitlines()]
    assert steps == ["step", "2", "4", "6", "8"]


# ------------------------------------------------------------------------------- single files
def old_checkpoint(folder: Path) -> Path:
    """As written before there were digests."""
    path = save_checkpoint(folder, 1, {"identity": "a", "step": 1, "weights": {"w": torch.arange(64.0)}})
    (path / "state.sha256").unlink()
    return path / "state.pt"


def test_checkpoints_without_a_digest_are_read_and_checked_by_their_checksums(tmp_path):
    file, rng = old_checkpoint(tmp_path), random.Random(0)
    good, data = load_checkpoint(tmp_path, "a"), file.read_bytes()
    assert good is not None
    passed_over = 0
    for _ in range(200):
        file.write_bytes(data)
        flip(file, rng)
        state = load_checkpoint(tmp_path, "a")
        passed_over += state is None
        assert state is None or torch.equal(state["weights"]["w"], good["weights"]["w"])
    assert passed_over > 100


def test_every_flipped_bit_and_every_cut_is_detected(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"identity": "a", "step": 1, "weights": {"w": torch.arange(64.0)}})
    file, rng = path / "state.pt", random.Random(1)
    data = file.read_bytes()
    for damage in (flip, DAMAGE["truncated"]):
        for _ in range(100):
            file.write_bytes(data)
            damage(file, rng)
            assert load_checkpoint(tmp_path, "a") is None
    file.write_bytes(data)
    assert load_checkpoint(tmp_path, "a") is not None


def test_other_files_in_the_folder_are_ignored(tmp_path):
    (tmp_path / "step-00000009").write_text("a file")
    (tmp_path / "step-old").mkdir()
    (tmp_path / "step-00000008" / "state.pt").mkdir(parents=True)
    assert load_checkpoint(tmp_path, "a") is None
    for step in (1, 2, 9):
        save_checkpoint(tmp_path, step, {"identity": "a", "step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000009", "step-old"]


@pytest.mark.parametrize(
    "state",
    [
        {"weights": {"w": torch.tensor([1.0, torch.nan])}},
        {"weights": {"w": torch.tensor([torch.inf]).half()}},
        {"optimizer": {"state": {0: {"exp_avg": torch.tensor([-torch.inf])}}}},
        {"losses": [0.5, float("nan")]},
    ],
)
def test_values_that_are_not_finite_are_never_saved(state: dict[str, Any], tmp_path):
    save_checkpoint(tmp_path, 1, {"identity": "a", "step": 1})
    with pytest.raises(InputError, match=r"holds NaN or infinity after step 2; lower the learning rate"):
        save_checkpoint(tmp_path, 2, {"identity": "a", "step": 2} | state)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    with pytest.raises(InputError, match="w holds NaN or infinity, so nothing was written"):
        check_before_writing({"ok": torch.ones(2), "w": torch.tensor([torch.nan])}, "adapter")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"identity": "a", "step": step})
    with largest_file(100_000), pytest.raises(OSError, match=r"state\.pt") as caught:
        save_checkpoint(tmp_path, 3, {"identity": "a", "step": 3, "weights": {"w": torch.ones(10**5)}})
    assert caught.value.errno == errno.EFBIG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_checkpoint_that_cannot_be_renamed_leaves_no_part(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    save_checkpoint(tmp_path, 1, {"identity": "a", "step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"):
            save_checkpoint(tmp_path, 2, {"identity": "a", "step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = TrainingLog(tmp_path, 0, 1000)

    def add_rows() -> None:
        for step in range(1, 100):
            log.add(StepRecord(step, 0.1, 0.1, 0.1, 0.1))

    with pytest.raises(OSError, match=r"loss\.csv"), largest_file(2000):
        add_rows()
    log.close()
    assert 50 < len(read_log(tmp_path / "loss.csv")) < 100


# --------------------------------------------------------------------------------- half precision
def accelerator_with_scaler(scale: float) -> Any:
    """Accelerate's scaler as on a GPU in half precision; on a CPU it refuses to create one."""
    accelerator = make_accelerator(LINE, "cpu")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    accelerator.native_amp = True
    accelerator.state._mixed_precision = "fp16"
    accelerator.autocast_handler = None
    return accelerator


def fit_halved(work: Path, overflows: Callable[[int], bool]) -> tuple[nn.Linear, Any]:
    network = nn.Linear(3, 1)
    accelerator = accelerator_with_scaler(2.0**16)

    def loss_at(net: Any, draw: int) -> Tensor:
        loss = network(seeded(draw)).square().mean()
        # As an overflow does: a gradient that is infinite after multiplication by the scale.
        return loss + 1e38 * (network.weight - network.weight.detach()).sum() if overflows(draw) else loss

    config = LINE.model_copy(update={"steps": 60})
    fit(config, network, dict(network.named_parameters()), loss_at, work, "halved", accelerator)
    return network, accelerator


def test_steps_that_the_scaler_skips_are_no_errors(tmp_path):
    network, accelerator = fit_halved(tmp_path, lambda draw: draw < 10)
    assert find_non_finite(network.state_dict()) is None
    assert accelerator.scaler.get_scale() < 2.0**16
    norms = [row.grad_norm for row in read_log(tmp_path / "loss.csv")]
    assert not math.isfinite(norms[0])
    assert norms[-1] < 1e3


def test_a_gradient_that_no_scale_makes_finite_stops_the_run(tmp_path):
    network = nn.Linear(3, 1)

    def loss_at(net: Any, draw: int) -> Tensor:
        return network(seeded(draw)).square().mean() + infinite_slope(network.weight)

    config = LINE.model_copy(update={"steps": 60})
    with pytest.raises(InputError, match=r"gradient is nan at step 3[3-6]"):
        fit(config, network, dict(network.named_parameters()), loss_at, tmp_path, "x", accelerator_with_scaler(2.0**16))
    assert find_non_finite(network.state_dict()) is None


# ------------------------------------------------------------------------------------ as a whole
def test_an_adapter_is_never_published_with_nan(tiny_folder, tmp_path, monkeypatch):
    """In the very last step, whose weights no later loss would check."""
    plain = dmp.MorphingLoss.__call__

    def faulty(self: Any, network: Any, draw: int) -> Tensor:
        last = next(p for name, p in network.named_parameters() if "lora_B" in name)
        return plain(self, network, draw) + (infinite_slope(last) if draw == CONFIG.steps - 1 else 0)

    with monkeypatch.context() as patch:
        patch.setattr(dmp.MorphingLoss, "__call__", faulty)
        with pytest.raises(InputError, match=rf"gradient is nan at step {CONFIG.steps}.*lower train\.learning_rate"):
            dmp.finetune(
                CONFIG, load_base(BaseConfig(model=str(tiny_folder))), toy_pairs(), tmp_path / "w", tmp_path / "o"
            )
    assert not (tmp_path / "o").exists()
    for work, out in (("w", "o"), ("never", "whole")):
        base = load_base(BaseConfig(model=str(tiny_folder)))
        dmp.finetune(CONFIG, base, toy_pairs(), tmp_path / work, tmp_path / out)
    assert_same_weights(tmp_path / "o", tmp_path / "whole")
