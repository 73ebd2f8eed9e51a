"""A preview shows what a run makes: the same bytes, and nothing in the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.requests.preview import preview
from dmp_core.stages import execute, find, plan
from dmp_core.store import Workspace, read_artefact
from tests.report.test_report import Page

TINY = ["images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1"]


def settings(*overrides: str) -> PipelineConfig:
    return load_config("smoke", None, [*TINY, *overrides])


def test_previewed_samples_are_the_first_of_the_run(tmp_path: Path) -> None:
    config = settings()
    made = preview(config, "train", 3, tmp_path / "preview")
    nodes, workspace = plan(config), tmp_path / "w"
    node = find(nodes, "images/train")
    for needed in (*node.inputs["prompts"].inputs.values(), node.inputs["prompts"], node):
        execute(config, needed.id, str(workspace))
    real = list(read_artefact(node.artefact(Workspace(str(workspace)))))
    assert (made.made, made.planned) == (3, len(real))
    assert len(real) > 3
    assert {path.name for path in (tmp_path / "preview").iterdir()} == {
        "index.html",
        *(f"{sample['__key__']}.{kind}" for sample in real[:3] for kind in ("png", "json")),
    }
    for sample in real[:3]:
        for kind in ("png", "json"):
            assert (tmp_path / "preview" / f"{sample['__key__']}.{kind}").read_bytes() == sample[kind]

    before = {path: path.stat().st_mtime_ns for path in workspace.rglob("*")}
    again = preview(config, "train", 1, tmp_path / "again", str(workspace))
    assert (tmp_path / "again" / f"{real[0]['__key__']}.png").read_bytes() == real[0]["png"]
    assert again.made == 1
    assert {path: path.stat().st_mtime_ns for path in workspace.rglob("*")} == before


def test_the_command_writes_one_page_with_captions_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [word for override in TINY for word in ("--set", override)]
    command = ["dataset", "preview", "--count", "2", "--split", "in_domain", "--preset", "smoke", "--out", "page"]
    result = CliRunner().invoke(app, [*command, *flags])
    assert result.exit_code == 0, result.output
    assert "page/index.html" in result.output
    page = Page((tmp_path / "page" / "index.html").read_text())
    assert page.unbalanced == []
    assert [Path(str(image["src"])).suffix for image in page.images] == [".png"] * 2
    assert all((tmp_path / "page" / str(image["src"])).is_file() for image in page.images)
    assert len({image["alt"] for image in page.images}) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_missing_split_and_a_used_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--split kitchens: .* choose one of: "):
        preview(settings(), "kitchens", 1, tmp_path / "a")
    (tmp_path / "file").touch()
    for used in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="not an empty folder"):
            preview(settings(), "train", 1, used)
