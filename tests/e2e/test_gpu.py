"""Where there is a GPU: parallel tasks take turns on it. Two processes of a training: tests/training/test_ranks.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ZoeDepthImageProcessor

from dmp_core.config import load_config
from dmp_core.stages import plan, statuses
from dmp_core.store import Workspace
from tests.labelers.test_zoedepth import HEADS, PROCESSOR, tiny

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
ON_IT = ["--set", "runtime={device: cuda, task_runner: process, parallel: 2, gpus: [0]}"]
DIFFUSED = "images={kind: diffusion, model: 'shipped:mini', resolution: 64, num_inference_steps: 2}"


def dmp(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dmp_core.cli", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_worker_processes_take_turns_on_it(tmp_path: Path) -> None:
    """`device: cuda` is refused where torch sees no GPU."""
    dmp("run", "-p", "smoke", "-w", str(tmp_path), "--set", "modalities=[normal]", *ON_IT)
    config = load_config("smoke", None, ["modalities=[normal]"])
    assert set(statuses(plan(config), Workspace(str(tmp_path))).values()) == {"complete"}


def test_so_do_those_that_draw_images_and_estimate_labels(tmp_path: Path) -> None:
    tiny(HEADS["nyu"]).save_pretrained(tmp_path / "zoedepth")
    ZoeDepthImageProcessor(**PROCESSOR).save_pretrained(tmp_path / "zoedepth")
    labels = f"labels={{depth: {{kind: zoedepth, weights: '{tmp_path}/zoedepth'}}}}"
    for stage in ("prompts", "images", "labels"):
        chosen = ["--set", DIFFUSED, "--set", labels, "--set", "modalities=[depth]"]
        dmp("stage", stage, "-p", "smoke", "-w", str(tmp_path / "workspace"), *chosen, *ON_IT)
    made = [path.parent.name for path in tmp_path.glob("workspace/labels/*/manifest.json")]
    assert len(made) == len(load_config("smoke").splits)
