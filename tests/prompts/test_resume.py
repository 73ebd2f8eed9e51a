"""A killed run resumes, with the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from dmp_core.config import load_config
from dmp_core.dataset.settings import SplitConfig
from dmp_core.prompts import ResumableGenerator, make, make_captions
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.settings import GrammarPrompts, PromptsConfig
from dmp_core.stages import execute, plan
from dmp_core.store import Workspace

CONFIG = PromptsConfig(generator=GrammarPrompts())
SPLIT = SplitConfig(keywords=["bedroom", "attic"], count=40)


class Counted(GrammarGenerator):
    """The grammar, which fails after a number of calls."""

    def __init__(self, calls: int = 10**9, name: str = "grammar") -> None:
        super().__init__()
        self.name, self.calls, self.written = name, calls, 0

    def generate(self, keywords: Sequence[str], template: str, seeds: Sequence[int]) -> list[str]:
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        self.written += len(keywords)
        return super().generate(keywords, template, seeds)


def table(generator: Counted, path: Path) -> pd.DataFrame:
    return make_captions("train", SPLIT, CONFIG, 0, generator=ResumableGenerator(generator, path)).table


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a run that was stopped after three of five times eight captions."""
    monkeypatch.setattr(make, "_AT_ONCE", 8)
    with pytest.raises(KeyboardInterrupt):
        table(Counted(calls=3), tmp_path / "answers")
    return tmp_path / "answers"


def test_only_the_rest_is_asked_for_and_the_result_is_the_same(interrupted: Path) -> None:
    whole = make_captions("train", SPLIT, CONFIG, 0).table
    assert len(whole) == 40
    rest = Counted()
    assert table(rest, interrupted).equals(whole)
    assert 16 <= rest.written < 40
    nothing = Counted(calls=0)
    assert table(nothing, interrupted).equals(whole)


def test_an_incomplete_line_is_generated_again_and_damages_no_other(interrupted: Path) -> None:
    text = interrupted.read_text()
    interrupted.write_text(text[: len(text) - 50])
    whole = make_captions("train", SPLIT, CONFIG, 0).table
    assert table(Counted(), interrupted).equals(whole)
    assert table(Counted(calls=0), interrupted).equals(whole)


def test_another_generator_does_not_reuse_these_completions(interrupted: Path) -> None:
    other = Counted(name="vllm:other")
    assert set(table(other, interrupted)["generator"]) == {"vllm:other"}
    assert other.written >= 40


def test_a_killed_stage_resumes(tmp_path: Path) -> None:
    """`kill -9` in the middle of the stage; the artefact is byte for byte that of a run that was not killed."""
    overrides = ["prompts.generator.kind=grammar", "splits.in_domain.count=4000", "base.model=a/b", "adapters={}"]
    config = load_config("smoke", None, overrides)
    node = next(node for node in plan(config) if node.id == "prompts/in_domain")
    folder = Workspace(tmp_path / "killed").scratch(node.artefact(Workspace(tmp_path / "killed")))
    code = (
        "import sys; from dmp_core.config import load_config; from dmp_core.stages import execute; "
        "execute(load_config('smoke', None, sys.argv[2:]), 'prompts/in_domain', sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "killed"), *overrides]
    with subprocess.Popen(command, env=dict(os.environ)) as running:
        answers = folder / ".answers.jsonl"
        while running.poll() is None and not (answers.exists() and answers.stat().st_size):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert answers.stat().st_size > 0
    made = [execute(config, node.id, str(tmp_path / name)).path for name in ("killed", "whole")]
    tables = [Path(path, "prompts.parquet").read_bytes() for path in made]
    assert tables[0] == tables[1]
    assert not folder.exists()
    manifest = json.loads(Path(made[0], "manifest.json").read_text())
    assert [record["name"] for record in manifest["files"]] == ["prompts.parquet"]
    assert manifest["details"] == {"generator": "grammar"}
