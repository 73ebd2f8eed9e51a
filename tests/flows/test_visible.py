"""Prefect's interface shows plain text, whatever the names of datasets and folders."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt

from dmp_core.stages import StageOutput
from flows import visible
from tests.test_text import HOSTILE


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text_in_artifacts(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Any, str]] = []
    monkeypatch.setattr(visible, "create_table_artifact", lambda rows, _, title: shown.append((rows, title)))
    visible.show_artefacts([StageOutput(f"shards/{text}", text, "0" * 12, False, 1, 0.0)], text)
    ((rows, title),) = shown
    assert all(value.isprintable() for value in rows[0].values() if isinstance(value, str))
    tokens = MarkdownIt("commonmark", {"html": True}).parse(f"{title}\n\n{visible.report_markdown({}, text)}")
    inner = {child.type for token in tokens for child in token.children or []}
    assert not inner & {"html_inline", "link_open", "image", "em_open", "strong_open"}
    assert "html_block" not in {token.type for token in tokens}
