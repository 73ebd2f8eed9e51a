"""Training in several processes gives what one gives, and an error in any of them ends all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dmp_core.config import load_config
from dmp_core.diffusion.adapters import find_adapter
from dmp_core.errors import InputError, RunError
from dmp_core.methods.dmp.finetune import finetune
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.progress import Progress, silent
from dmp_core.stages import plan
from dmp_core.training.ranks import fit_in_ranks, ranks_on
from dmp_core.training.settings import LoraConfig
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.commands import WITHOUT_PREFECT, in_process
from tests.making import make
from tests.training.conftest import toy_pairs

CONFIG = TrainConfig(
    lora=LoraConfig(rank=4, targets="all"), steps=6, batch_size=6, learning_rate=1e-4, checkpoint_every=2
)


def fit(model: Path, folder: Path, disturbed: Any, device: str, progress: Progress) -> dict[str, Any]:
    """disturbed: called before each pass through the network, with the rank."""
    base, rank = load_base(BaseConfig(model=str(model))), int(os.environ.get("RANK", "0"))
    if disturbed:
        base.unet.register_forward_pre_hook(partial(disturbed, rank, iter(range(99))))
    result = finetune(CONFIG, base, toy_pairs(6), folder / "work", folder / "out", device=device, progress=progress)
    return result.summary()


def killed(rank: int, steps: Any, *_: Any) -> None:
    if next(steps) == 3 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def terminated(rank: int, steps: Any, *_: Any) -> None:
    """In the third step, SIGTERM for the process that the run started in."""
    if next(steps) == 2 and rank == 0:
        os.kill(os.getppid() if "RANK" in os.environ else os.getpid(), signal.SIGTERM)
        time.sleep(1.5 if "RANK" in os.environ else 0.0)  # until it has passed the signal on


def terminated_in_ranks(model: Path, folder: Path, ranks: int) -> None:
    if ranks == 1:
        fit(model, folder, terminated, "cpu", silent)
    else:
        fit_in_ranks(partial(fit, model, folder, terminated), ranks, "cpu", silent)


def refused(device: str, progress: Progress) -> dict[str, Any]:
    """By the second process, for which the first one waits."""
    if torch.distributed.get_rank() == 1:
        raise InputError("training: the loss is nan")
    torch.distributed.barrier()
    return {}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(find_adapter(folder / "out"))


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("alone")
    fit(tiny_folder, folder, None, "cpu", silent)
    return weights(folder)


@pytest.mark.slow
def test_three_processes_train_what_one_trains(tiny_folder, tmp_path, alone):
    reports: list[tuple[Any, ...]] = []
    details = fit_in_ranks(partial(fit, tiny_folder, tmp_path, None), 3, "cpu", lambda *report: reports.append(report))
    assert details["steps"] == CONFIG.steps
    assert [done for done, *_ in reports] == list(range(1, CONFIG.steps + 1))
    assert difference(weights(tmp_path), alone) < 1e-5


@pytest.mark.slow
def test_a_killed_process_ends_all_with_one_message_and_any_number_resumes(tiny_folder, tmp_path, alone):
    with pytest.raises(RunError, match=r"one of its 2 processes was killed.*resumes from the last checkpoint"):
        fit_in_ranks(partial(fit, tiny_folder, tmp_path, killed), 2, "cpu", silent)
    assert not (tmp_path / "out").exists()
    assert fit(tiny_folder, tmp_path, None, "cpu", silent)["resumed_at"] == 2
    assert difference(weights(tmp_path), alone) < 1e-5


def fit_on(shared: str, model: Path, folder: Path, device: str, progress: Progress) -> dict[str, Any]:
    """shared: the device of all processes, which NCCL refuses; so they exchange gradients as on a CPU."""
    os.environ["LOCAL_RANK"] = "0"
    return fit(model, folder, None, shared, progress)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
def test_two_processes_may_share_a_device(tiny_folder, tmp_path, device):
    fit(tiny_folder, tmp_path / "alone", None, device, silent)
    fit_in_ranks(partial(fit_on, device, tiny_folder, tmp_path / "both"), 2, "cpu", silent)
    assert difference(weights(tmp_path / "both"), weights(tmp_path / "alone")) < 1e-4


@pytest.mark.e2e
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_terminated_run_saves_its_last_step_and_resumes_there(tiny_folder, tmp_path, alone, ranks):
    child = get_context("spawn").Process(target=terminated_in_ranks, args=(tiny_folder, tmp_path, ranks))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGTERM
    assert not (tmp_path / "out").exists()
    assert fit(tiny_folder, tmp_path, None, "cpu", silent)["resumed_at"] == 3
    assert difference(weights(tmp_path), alone) < (1e-5 if ranks > 1 else 1e-9)


# ------------------------------------------------------------------------------ several machines
TINY = [
    "modalities=[depth]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}",
    "runtime={workers: 1, device: cpu}",
    "splits={train: {keywords: [bedroom], count: 3}, in_domain: {keywords: [bedroom], count: 1}}",
    "train={steps: 40, batch_size: 4, checkpoint_every: 2, learning_rate: 1.0e-4, nodes: 2}",
]  # fmt: skip


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A workspace that only lacks its training, and the weights of one machine's."""
    alone, workspace = (tmp_path_factory.mktemp(name) for name in ("alone", "shared"))
    make(
        alone,
        load_config("smoke", None, [*TINY, "train.nodes=1"]),
        ("prompts", "images", "labels", "quality", "latents"),
    )
    shutil.copytree(alone, workspace, dirs_exist_ok=True)
    make(alone, load_config("smoke", None, [*TINY, "train.nodes=1"]), ["train"])
    return workspace, weights_in(alone)


def weights_in(workspace: Path) -> dict[str, torch.Tensor]:
    (folder,) = workspace.glob("adapters/depth-dmp-*")
    return load_file(find_adapter(folder))


def start(workspace: Path, number: int, port: int) -> subprocess.Popen[str]:
    """`dmp stage train` on the machine of this number."""
    own = {"NODE_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    settings = [word for text in TINY for word in ("--set", text)]
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_PREFECT, "stage", "train", "-p", "smoke", "-w", str(workspace), *settings],
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.e2e
def test_two_machines_train_what_one_trains_also_after_one_is_lost(machines):
    workspace, alone = machines
    port = free_port()
    runs = [start(workspace, number, port) for number in (0, 1)]
    while not list(workspace.glob(".scratch/**/step-*/state.sha256")):
        assert all(run.poll() is None for run in runs), [run.communicate()[1] for run in runs]
        time.sleep(0.05)
    os.killpg(runs[1].pid, signal.SIGKILL)
    said = runs[0].communicate(timeout=120)[1].splitlines()[-1]
    assert runs[0].returncode == 1
    assert "the connection to the other machines was lost" in said
    assert not list(workspace.glob("adapters/*/dmp.json"))

    port = free_port()
    runs = [start(workspace, number, port) for number in (0, 1)]
    for run in runs:
        assert run.wait(240) == 0, run.communicate()[1]
    assert difference(weights_in(workspace), alone) < 1e-5
    (manifest,) = workspace.glob("adapters/depth-dmp-*/manifest.json")
    assert json.loads(manifest.read_text())["details"]["resumed_at"] >= 2
    assert not list(workspace.glob(".locks/*.lock"))


@pytest.mark.parametrize(
    "environment",
    [{}, {"NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, {"NODE_RANK": "0", "MASTER_ADDR": "a"}],
)
def test_a_machine_that_does_not_know_its_place_is_refused_before_any_work(environment, monkeypatch, tmp_path):
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"train\.nodes: 2 machines.*set NODE_RANK to 0 on the first"):
        in_process("run", "-p", "smoke", "-w", tmp_path, "--set", "train.nodes=2")
    assert not list(tmp_path.iterdir())


def test_an_error_in_one_process_ends_all():
    with pytest.raises(InputError, match="the loss is nan"):
        fit_in_ranks(refused, 2, "cpu", silent)


def test_processes_are_part_of_no_fingerprint_but_the_reports_which_shows_them():
    plans = (
        plan(load_config("smoke", None, [f"train.{many}"])) for many in ("processes=1", "processes=auto", "nodes=2")
    )
    assert len({tuple(node.fingerprint for node in nodes if node.stage != "report") for nodes in plans}) == 1


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match=r"train.*processes: 3 .* batch of 2"):
        load_config("smoke", None, ["train.processes=3"])


def test_without_gpus_auto_is_one_process_and_missing_ones_are_an_error():
    assert (ranks_on("cpu", "auto"), ranks_on("cpu", 2)) == (1, 2)
    if torch.cuda.device_count() < 64:
        with pytest.raises(InputError, match="64 processes need as many GPUs"):
            ranks_on("cuda", 64)
