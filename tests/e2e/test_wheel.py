"""The wheel in an environment of its own, in a folder of its own: what `pip install dmp-pipeline` gives."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory):
    """Of an environment with the wheel; the other packages are those of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # .pth files there are not read
    return python.parent


def test_the_wheel_runs_and_predicts(bin_folder, tmp_path):
    (tmp_path / "flows").mkdir()  # the user's own package of that name
    (tmp_path / "flows" / "__init__.py").write_text("raise RuntimeError")
    Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(tmp_path / "photo.png")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def dmp(*words: str) -> str:
        done = subprocess.run([bin_folder / "dmp", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "predict" in dmp("--help")
    assert dmp("--version").strip().endswith(version("dmp-pipeline"))
    assert "artefacts made, 0 cached" in dmp("run", "--preset", "smoke", "--set", "modalities=[normal]", "-w", "w")
    assert (tmp_path / "w" / "report" / "index.html").is_file()
    dmp("predict", "photo.png")
    predicted = {path.name.split(".")[1] for path in (tmp_path / "predictions").glob("photo.*.pred.png")}
    assert predicted == {"normal", "depth", "seg", "albedo", "shading"}
    found = "import dmp_core, dmp_pipeline.flows as flows; print(dmp_core.__file__, flows.__file__)"
    files = subprocess.check_output([bin_folder / "python", "-c", found], cwd=tmp_path, env=env, text=True).split()
    assert all(Path(file).is_relative_to(bin_folder.parent) for file in files)
