"""The page's parts that need no browser; Gradio is optional, and not installed with `dev`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dmp_core.app import page
from dmp_core.cli import app
from dmp_core.errors import MissingExtra


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtra, match=r"gradio is not installed; run: pip install 'dmp-pipeline\[app\]'"):
        app(["app"], standalone_mode=False)


def test_the_pages_own_files_refer_to_no_other_host() -> None:
    for file in Path(page.__file__).parent.iterdir():
        if file.suffix in (".js", ".css", ".py"):
            assert "http" not in file.read_text(), file.name
