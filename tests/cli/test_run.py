"""Notes of `dmp plan` and `dmp run`, in addition to their results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dmp_core.cli import app
from dmp_core.cli.errors import guarded
from dmp_core.cli.run import _not_trained
from dmp_core.config import load_config
from dmp_core.stages import execute, plan, select
from dmp_core.store.files import machine
from dmp_core.store.locks import Holder


def dmp(*arguments: str) -> int:
    return guarded(lambda: app(arguments, prog_name="dmp", standalone_mode=False))


@pytest.mark.parametrize("options", [["--json"], []])
def test_a_workspace_of_another_preset_is_noticed(tmp_path: Path, capsys, options):
    here = ["plan", "-w", str(tmp_path), *options]
    assert dmp(*here, "-p", "mini") == 0
    assert capsys.readouterr().err == ""
    execute(load_config("smoke"), "prompts/in_domain", str(tmp_path))
    (tmp_path / ".preset").write_text("smoke")  # as a run leaves it
    assert dmp(*here, "-p", "mini") == 0
    said = capsys.readouterr()
    assert said.err == f"note: {tmp_path} was last run with --preset smoke; nothing in it fits --preset mini\n"
    assert not options or json.loads(said.out)["artefacts"]
    assert dmp(*here, "-p", "smoke") == 0
    assert dmp(*here, "-p", "smoke", "--set", "train.steps=4") == 0
    assert capsys.readouterr().err == ""


def test_a_run_with_nothing_to_do_releases_the_lock_of_a_killed_one(tmp_path: Path) -> None:
    """As a process leaves it that is killed between its artefact's manifest and the end of its lock."""
    config = load_config("smoke")
    for node in select(plan(config), "prompts"):
        execute(config, node.id, str(tmp_path))
    holder = Holder(token="", beat=0, host="", machine=machine(), pid=os.getpid(), started="before this process")
    (tmp_path / ".locks" / "prompts-train.lock").write_text(holder.model_dump_json())
    assert dmp("stage", "prompts", "-p", "smoke", "-w", str(tmp_path)) == 0
    assert list((tmp_path / ".locks").iterdir()) == []


def test_a_stage_that_trains_nothing_says_so() -> None:
    nodes = plan(load_config("smoke", None, ["modalities=[normal, shading]", "adapters={normal: 'shipped:normal'}"]))
    (line,) = _not_trained(select(nodes, "train"))
    assert line.startswith("train/normal-dmp: shipped:normal is a finished adapter, so nothing is trained; --set ")
