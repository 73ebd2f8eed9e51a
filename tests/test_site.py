"""The documentation site builds without a warning, loads nothing from elsewhere, and its references are complete."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dmp_core.config.pipeline import PipelineConfig
from docs.writing import results
from docs.writing.site import commands, settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_every_document_is_a_page_in_the_navigation(site):
    names = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    generated = {"index.md", "changelog.md", "contributing.md", "reference/commands.md", "reference/settings.md"}
    assert names == written | generated
    assert all((site / name).with_suffix(".html").is_file() for name in names)


def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src=.?https?:|<link[^>]+stylesheet[^>]+href=.?https?:|@import"
    )
    assert not [page for page in site.rglob("*.html") if loads.search(page.read_text())]
    styles = [*site.rglob("*.css")]
    assert styles
    assert not [style for style in styles if re.search(r"@import|url\(.?https?:", style.read_text())]


def test_pages_open_from_files(site):
    start = (site / "index.html").read_text()
    linked = [target for target in re.findall(r'href="([^"#:]+)', start) if not target.startswith("https")]
    assert len(linked) > 30
    assert all((site / target).is_file() for target in linked)


@pytest.mark.parametrize("name", ["compare", "ablate"])
def test_results_agree_with_the_stored_numbers(name, tmp_path):
    stored = results.STORE / name
    index = json.loads((stored / results.INDEX).read_text())
    pages = results.PAGES[name]
    shown = [output for outputs in pages.values() for output in outputs]
    assert sorted(shown) == sorted([*index["outputs"], results.DIFFERENCES])
    page = next(page for page, outputs in pages.items() if results.DIFFERENCES in outputs)
    assert "".join(results._differences(stored, index)) in (ROOT / page).read_text()
    shutil.copy(stored / results.VERSUS, tmp_path)
    results.as_text(tmp_path)
    assert (tmp_path / results.TEXT).read_bytes() == (stored / results.TEXT).read_bytes()


def test_every_setting_is_listed_with_its_meaning():
    text = settings()
    for name, field in PipelineConfig.model_json_schema()["properties"].items():
        assert f"| `{name}` |" in text
        assert field.get("description", "") in text
    assert "| `batch_size` | integer > 0 |" in text
    assert "| `resolution` | integer ≥ 64 ≤ 2048 multiple of 8 |" in text
    assert "| `share` | list of number ≥ 0 ≤ 1, number ≥ 0 ≤ 1 |" in text
    assert "| `gpus` | `auto` or list of integer ≥ 0 length ≥ 1 |" in text
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    assert not [row for row in rows if len(row) != 4 or not all(cell.strip() for cell in row)]
    for section in ("train.lora", "images (kind: diffusion)", "splits.NAME", "train (method: spade)"):
        assert f"## `{section}`" in text


def test_every_command_is_listed():
    text = commands()
    assert {"## `dmp run`", "## `dmp dataset`", "### `dmp dataset new`"} <= set(text.splitlines())
