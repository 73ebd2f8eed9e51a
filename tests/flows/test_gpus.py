"""Each runner gives every task a GPU of its own. The GPUs are only names: no device is needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from prefect import task
from prefect.cache_policies import NO_CACHE

from dmp_core.config import load_config
from dmp_core.dataset.reading import PROMPTS_FILE
from dmp_core.stages import execute, prompts
from dmp_core.stages.gpus import visible_gpus
from flows import task_runners
from flows.stages import STAGE_FLOWS
from tests.flows.recording import FOLDER, by_grammar, record_stage

ROOT = Path(__file__).resolve().parents[2]
KEYWORDS = {"train": "bedroom", "in_domain": "kitchen", "a": "attic", "b": "office", "c": "bathroom"}


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Names of GPUs, and folders for claims and for what the tasks record."""
    for variable, folder in (("TMPDIR", "tmp"), (FOLDER, "recorded")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6,5,4")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    visible_gpus.cache_clear()
    yield tmp_path / "recorded"
    visible_gpus.cache_clear()


def request(model: Path, *overrides: str):
    """Prompts of a language model: their stage computes on the device, and needs no other artefact."""
    model.mkdir(exist_ok=True)
    splits = [f"splits.{name}={{keywords: [{word}], count: 3}}" for name, word in KEYWORDS.items()]
    return load_config(
        "smoke", None, [f"prompts.generator={{kind: transformers, model: {model}}}", *splits, *overrides]
    )


@pytest.mark.e2e
@pytest.mark.parametrize(("runner", "number"), [("process", 2), ("process", 4), ("dask", 4), ("ray", 4)])
def test_tasks_use_every_gpu_and_none_twice_at_a_time(runner, number, gpus, tmp_path, monkeypatch):
    if runner in ("dask", "ray") and importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"prefect-{runner} is not installed (extra {runner}; `make e2e` installs it)")
    if runner == "ray":
        monkeypatch.delenv("TMPDIR")  # its sockets need a short path, and it claims no files
    listed = f"runtime={{task_runner: {runner}, parallel: {number}, gpus: {list(range(number))}}}"
    made = task(name="prompts", cache_policy=NO_CACHE, persist_result=False)(record_stage)
    monkeypatch.setitem(task_runners.STAGE_TASKS, "prompts", made)
    config = request(tmp_path / "model", listed)
    outputs = STAGE_FLOWS["prompts"](config=config, workspace=str(tmp_path / "divided"))
    assert {path.name for path in gpus.iterdir()} == {f"{gpu}.used" for gpu in (7, 6, 5, 4)[:number]}

    monkeypatch.setattr(prompts, "run", by_grammar)
    for output in outputs:
        alone = execute(request(tmp_path / "model"), output.id, str(tmp_path / "alone"))
        texts = [(Path(path) / PROMPTS_FILE).read_bytes() for path in (output.path, alone.path)]
        assert texts[0] == texts[1]
