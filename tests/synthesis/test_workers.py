"""Renderer processes must not outlive the process that they work for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing
from dmp_core.synthesis.settings import RenderImages
from dmp_core.runtime import RuntimeConfig
from dmp_core.synthesis.rendered import RenderedImages

if __name__ == "__main__":
    settings = RenderImages(resolution=16, samples_per_pixel=1)
    rows = [
        {"key": f"train-{seed:08d}", "split": "train", "keyword": "bedroom", "prompt": "a bedroom", "seed": seed}
        for seed in range(100_000)
    ]
    with RenderedImages(settings, RuntimeConfig(workers=2)) as source:
        for index, _ in enumerate(source.samples(rows)):
            if index == 0:
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    until = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))
