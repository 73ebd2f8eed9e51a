"""GPUs of this machine: which are planned, and that no two processes have the same one. They are only names here."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages import find, own_gpu, plan, planned_gpus
from dmp_core.stages.gpus import check_gpus, visible_gpus


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Four GPUs, and a folder for claims."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-6a,MIG-GPU-7/1/0")
    visible_gpus.cache_clear()
    yield
    visible_gpus.cache_clear()


def runtime(**settings):
    return RuntimeConfig(**{"task_runner": "process", "parallel": 4, **settings})


def test_visible_gpus_are_those_of_cuda(monkeypatch, tmp_path):
    assert visible_gpus() == ("4", "5", "GPU-6a", "MIG-GPU-7/1/0")
    for named, seen in (("", ()), ("-1", ()), ("NoDevFiles", ()), ("2, 3", ("2", "3")), ("1,-1,2", ("1",))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        visible_gpus.cache_clear()
        assert visible_gpus() == seen

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-a)\n  MIG 1g Device 0: (UUID: MIG-b)\nGPU 1: H100'\n"
    )
    tool.chmod(0o755)
    for path, seen in ((f"{tmp_path}:{os.environ['PATH']}", ("0", "1")), (str(tmp_path / "nothing"), ())):
        monkeypatch.setenv("PATH", path)
        visible_gpus.cache_clear()
        assert visible_gpus() == seen


def test_planned_gpus_are_the_listed_ones_or_several_visible_ones(monkeypatch):
    assert planned_gpus(runtime(gpus=[3, 0])) == ("MIG-GPU-7/1/0", "4")
    assert len(planned_gpus(runtime())) == 4
    assert planned_gpus(RuntimeConfig()) == planned_gpus(runtime(device="cpu")) == ()
    with pytest.raises(InputError, match=r"runtime\.gpus: no GPU 4: this machine shows 4"):
        planned_gpus(runtime(gpus=[0, 4]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    visible_gpus.cache_clear()
    assert planned_gpus(runtime()) == ()  # on one GPU nothing changes
    assert planned_gpus(runtime(task_runner="ray")) == ("0",)  # which hides it from tasks that request none


def test_settings_that_cannot_be_met_are_refused(monkeypatch):
    for wanted in ("runtime.gpus=[0]", "runtime={task_runner: process, gpus: [0], device: cpu}"):
        with pytest.raises(InputError, match=r"gpus: needs task_runner process, dask or ray, and no other device"):
            load_config("smoke", None, [wanted])
    config = load_config("smoke", None, ["runtime={task_runner: process, gpus: [0, 1]}", "train.processes=2"])
    with pytest.raises(InputError, match=r"train\.processes: 2, but with task_runner process each task has one GPU"):
        check_gpus(plan(config), config.runtime)
    check_gpus(plan(config), RuntimeConfig())


def test_stages_that_compute_on_the_device_claim_a_gpu():
    nodes = plan(load_config("smoke"))
    on_device = {node.stage for node in nodes if node.config.on_device}
    assert on_device == {"latents", "train", "predict", "evaluate"}
    spade = plan(load_config("smoke", None, ["train.method=spade", "modalities=[normal]"]))
    assert find(spade, "train/normal-spade").config.on_device
    installed = plan(load_config("smoke", None, ["adapters.normal=shipped:normal"]))
    assert not find(installed, "train/normal-dmp").config.on_device


def use(folder: Path, number: int) -> str:
    with own_gpu(load_config("smoke", None, ["runtime={task_runner: process, gpus: [0, 1]}"])) as config:
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        assert config.runtime.device == "cuda"
        (folder / f"{gpu}.busy").touch(exist_ok=False)
        (folder / f"{gpu}.used").touch()
        until = time.monotonic() + 60
        while len(list(folder.glob("*.used"))) < 2 and time.monotonic() < until:  # processes start one by one
            time.sleep(0.02)
        time.sleep(0.05)
        (folder / f"{gpu}.busy").unlink()
        return gpu


def test_no_two_processes_have_one_gpu_and_more_of_them_wait(tmp_path):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        used = list(pool.map(use, [tmp_path] * 9, range(9)))
    assert set(used) == {"4", "5"}
