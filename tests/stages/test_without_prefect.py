"""The command line in an environment without Prefect, such as vLLM's."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

# A fresh interpreter in which none of these can be found, as if they were not installed.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"prefect", "torch", "transformers", "diffusers", "peft", "mitsuba"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from dmp_core.cli import main
main()
"""


def dmp(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)


def test_the_prompts_stage_needs_only_the_core(tmp_path: Path) -> None:
    done = dmp("stage", "prompts", "-p", "smoke", "-w", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Prefect is not installed" in done.stderr
    assert (tmp_path / ".preset").read_text() == "smoke"
    made = sorted(path.name.partition("-")[0] for path in (tmp_path / "prompts").iterdir())
    assert made == ["arbitrary", "in_domain", "out_of_domain", "train"]
    for file in (tmp_path / "prompts").glob("*/prompts.parquet"):
        assert len(pd.read_parquet(file))


def test_all_missing_extras_are_named_before_any_work(tmp_path: Path) -> None:
    done = dmp("run", "-p", "smoke", "-w", str(tmp_path / "w"))
    assert done.returncode == 2
    missing = "diffusers, mitsuba, peft, torch are not installed; run: pip install 'dmp-pipeline[render,train]'"
    assert missing in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_model_library_is_named(tmp_path: Path) -> None:
    vllm = "prompts.generator={kind: vllm}"
    done = dmp("stage", "prompts", "-p", "smoke", "-w", str(tmp_path), "--set", vllm)
    assert done.returncode == 2
    assert "pip install 'dmp-pipeline[vllm]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_predicting_without_torch_names_its_extra(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    done = dmp(
        "predict", str(image), "--modality", "normal", "--adapter", "shipped:normal", "--out", str(tmp_path / "o")
    )
    assert done.returncode == 2
    assert "pip install 'dmp-pipeline[train]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
