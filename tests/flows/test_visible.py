"""Prefect's interface shows plain text, whatever the names of datasets and folders."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import pytest
from markdown_it import MarkdownIt
from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import FailedRun
from prefect.states import Failed

from dmp_core.errors import InputError, WrongSetting
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


def test_the_report_is_a_link_whatever_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, ...]] = []
    monkeypatch.setattr(visible, "create_link_artifact", lambda *given: shown.append(given))
    for path in ("/data/a_b_ [b](c) d/report/rooms", "s3://bucket/report/rooms"):
        visible.show_link([StageOutput("report/rooms", path, "0" * 12, True, 1, 0.0)])
    assert [link for link, *_ in shown] == [
        "file:///data/a_b_%20%5Bb%5D%28c%29%20d/report/rooms/index.html",
        "s3://bucket/report/rooms/index.html",
    ]
    reader = MarkdownIt()
    reader.validateLink = lambda _: True  # type: ignore[method-assign]
    children = reader.parse(f"[{shown[0][1]}]({shown[0][0]})")[1].children or []
    assert [child.type for child in children if child.type != "text"] == ["link_open", "link_close"]
    assert "".join(child.content for child in children) == shown[0][0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("labels.depth: no such labeler"), ["bad input: labels.depth: no such labeler"]),
        (WrongSetting("a"), ["bad input: a"]),
        (FailedRun("b"), []),
    ],
)
def test_bad_input_is_the_last_line_of_the_log(error: Exception, said: list[str]) -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        visible.show_bad_input(Flow(lambda: None, name="f"), FlowRun(flow_id=uuid4()), Failed(data=error))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert heard == said
