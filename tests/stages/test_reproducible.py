"""The DAG made twice is the same byte for byte, except for the files listed in docs/reproducibility.md."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dmp_core.config import PipelineConfig, load_config
from dmp_core.stages import plan, statuses
from dmp_core.store import Workspace
from tests.making import make

TIMED = {"report/index.html", "report/single.html", "report/metrics.json"}
"""Files of the report that list how long stages took."""


def settings() -> PipelineConfig:
    tiny = ["modalities=[shading]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1"]
    return load_config("smoke", None, tiny)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    make(one, settings())
    make(other, settings())
    return one, other


def files(workspace: Path) -> dict[str, bytes]:
    return {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and not path.relative_to(workspace).parts[0].startswith(".")
    }


def timeless(manifest: bytes) -> Any:
    content = json.loads(manifest)
    for name in ("created", "seconds"):
        del content[name]
    report = ("index.html", "single.html", "metrics.json") if content["stage"] == "report" else ()
    unlike = ("loss.csv", "tensorboard", *report)
    content["files"] = [record for record in content["files"] if not record["name"].startswith(unlike)]
    return content


def without_seconds(log: bytes) -> list[list[str]]:
    return [row[:-1] for row in csv.reader(io.StringIO(log.decode()))]


def unstamped(name: str) -> str:
    """TensorBoard names its files by time, machine and process."""
    return re.sub(r"events\.out\.tfevents.*", "events", name)


@pytest.mark.slow
def test_a_second_workspace_has_the_same_bytes(twice: tuple[Path, Path]) -> None:
    one, other = (files(workspace) for workspace in twice)
    assert sorted(map(unstamped, one)) == sorted(map(unstamped, other))
    for name in sorted(one.keys() & other.keys()):
        if name.endswith("manifest.json"):
            assert timeless(one[name]) == timeless(other[name]), name
        elif name.endswith("loss.csv"):
            assert without_seconds(one[name]) == without_seconds(other[name]), name
        elif re.sub(r"^reports/[^/]+", "report", name) not in TIMED:
            assert one[name] == other[name], name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prompts", "images", "labels", "latents", "train", "predict", "evaluate"])
def test_an_artefact_made_again_by_force_makes_nothing_stale(twice: tuple[Path, Path], stage: str) -> None:
    workspace = twice[1]
    nodes = plan(settings())
    again = make(workspace, settings(), [stage], force=True)
    assert sorted(again) == sorted(node.id for node in nodes if node.stage == stage)
    found = statuses(nodes, Workspace(workspace))
    assert set(found.values()) == {"complete"}, found
