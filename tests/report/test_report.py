"""The page: complete, offline, explicit about missing parts, and the same each time."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dmp_core.report import (
    ModelRecord,
    Provenance,
    QualityRecord,
    ReportData,
    Sample,
    StageTiming,
    StatisticsCollector,
    TrainingRecord,
    build_report,
    keys_to_show,
)
from dmp_core.report.build import draw_plots, duration, plain, render_page, summary_sentence
from dmp_core.report.plots import distribution, loss_curve
from dmp_core.report.tables import format_number, headlines, score_tables
from dmp_core.scoring.protocol import score
from dmp_core.text import plain as plain_text
from tests.report.rooms import metrics_of, room, samples, tables
from tests.test_text import HOSTILE

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
URL_ATTRIBUTES = {"src", "href", "srcset", "poster", "data", "action", "xlink:href", "data-values"}


class Page(HTMLParser):
    """What a browser would fetch, jump to, show; and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.urls: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.urls += [value for name, value in attrs if name in URL_ATTRIBUTES and value]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "img" and "src" in given:
            self.images.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def data() -> ReportData:
    shown = {"in_domain": samples("in_domain", 7), "out_of_domain": samples("out_of_domain", 7, noise=0.2)}
    rows = [table for split, some in shown.items() for table in tables(split, some)]
    collector = StatisticsCollector()
    for sample in shown["in_domain"]:
        collector.update(
            sample.prompt, sample.keyword, rgb=sample.rgb, labels={"segmentation": sample.labels["segmentation"]}
        )
    curve = pd.DataFrame({"step": np.arange(1, 60), "loss": np.exp(-np.arange(59) / 20.0), "lr": 1e-3})
    return ReportData(
        title="Rooms & tests",
        config_yaml="dataset: rooms\nnote: <none>\n",
        metrics=metrics_of(rows),
        tables=rows,
        samples={**shown, "arbitrary": samples("arbitrary", 3, noise=0.3)},
        gallery=5,
        training={
            "normal": TrainingRecord("trained in this run", curve, 61.0, 96, {"LoRA rank": 16}),
            "depth": TrainingRecord("shipped adapter", adapter={"file": "2.4 MB", "steps": None}),
        },
        statistics={"train": collector.result()},
        quality=QualityRecord(
            {"min_std": 1.0, "normal.min_unit": 0.9}, {"train": {"min_std": 37}}, {"std": [0.5, 20.0, 31.0]}
        ),
        timing=[
            StageTiming("images", "train", 62.0, 96, cached=False, fingerprint="3fa91b22c0de"),
            StageTiming("prompts", "train", 30.0, 96, cached=True),
        ],
        provenance=Provenance([ModelRecord("priors/mini", "base model", "1", "aa" * 32, "Apache-2.0")], {"torch": "2"}),
        notes=["Small on purpose."],
    )


@pytest.fixture(scope="module")
def folder(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "made" / "here"
    assert build_report(data, out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# --------------------------------------------------------------------------------------- whole
def test_every_file_that_the_page_names_is_there_and_no_other(page: Page, folder: Path) -> None:
    local = {url for url in page.urls if not url.startswith("#")}
    assert all((folder / url).is_file() for url in local)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == local | {"index.html"}


def test_splits_in_other_letters_keep_their_own_images(tmp_path: Path) -> None:
    shown = {split: samples(split, 1) for split in ("träin", "trüin")}
    build_report(ReportData("t", "", {}, samples=shown), tmp_path)
    urls = {url for url in Page((tmp_path / "index.html").read_text()).urls if url.startswith("images/")}
    assert all(url.isascii() for url in urls)
    assert {unquote(url) for url in urls} == {f"images/{path.name}" for path in (tmp_path / "images").iterdir()}
    assert len(urls) == 2 * len({re.sub("tr[äü]in", "", unquote(url)) for url in urls})


def test_nothing_is_fetched_from_anywhere(page: Page, html: str) -> None:
    assert not [url for url in page.urls if re.match(r"[a-z]+:|//", url)]
    assert not re.search(r"https?://", html)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)


def test_the_page_is_well_formed_and_its_links_arrive(page: Page, html: str) -> None:
    assert html.lstrip().startswith("<!doctype html>")
    assert page.unbalanced == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {url[1:] for url in page.urls if url.startswith("#")} <= set(page.ids)


def test_every_image_has_alternative_text(page: Page) -> None:
    assert len(page.images) > 100
    assert all(image["alt"] and image["width"] and image["height"] for image in page.images)


def test_prompts_and_configuration_are_escaped(html: str, page: Page) -> None:
    assert "<bedroom>" not in html
    assert "<none>" not in html
    assert any("A cosy <bedroom> no. 3" in text for text in page.text)


def test_hostile_prompts_keywords_and_titles_stay_text(data: ReportData) -> None:
    def page(text: str) -> Page:
        shown = {split: replace(record, keywords={text: 1.0}) for split, record in data.statistics.items()}
        hostile = replace(data, title=text, summary=text, statistics=shown, metrics={}, tables=[])
        return Page(render_page(hostile, [], draw_plots(hostile)))

    text = " ".join(HOSTILE)
    found, sound = page(text), page("x")
    assert (found.urls, found.ids, found.unbalanced) == (sound.urls, sound.ids, [])
    assert plain_text(text, keep="\n\t") in found.text
    assert all(char >= " " or char in "\n\t" for piece in found.text for char in piece)


def test_equal_data_give_equal_bytes(data: ReportData, folder: Path, tmp_path: Path) -> None:
    build_report(data, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_large_images_are_shown_small(tmp_path: Path) -> None:
    arrays = room(0, 300)
    sample = Sample("big", "a bedroom", arrays["rgb"], {"depth": arrays["depth"]}, {"depth": arrays["depth"] * 1.1})
    build_report(ReportData("t", "", {}, samples={"in_domain": [sample]}), tmp_path)
    pictures = sorted((tmp_path / "images").iterdir())
    assert len(pictures) == 4
    assert all(max(Image.open(path).size) <= 208 for path in pictures)
    assert sum(path.stat().st_size for path in pictures) < 60_000


# ------------------------------------------------------------------------------------- content
def test_sections_appear_for_existing_parts(page: Page) -> None:
    sections = {"summary", "results", "gallery-in_domain", "gallery-arbitrary", "cases", "training", "dataset"}
    assert sections | {"quality", "timing", "provenance"} <= set(page.ids)
    text = " ".join(" ".join(page.text).split())
    for words in (
        "trained in this run",
        "shipped adapter",
        "not scored",
        "best",
        "worst",
        "Small on purpose.",
        "1 min 32 s of work",
        "1 min 02 s of it in this run",
        "min_std 1.0 37",
        "normal.min_unit 0.9 0",
    ):
        assert words in text


def test_an_almost_empty_report_still_opens(tmp_path: Path) -> None:
    text = build_report(ReportData(title="nothing", config_yaml="", metrics={}), tmp_path).read_text()
    page = Page(text)
    assert "No task was scored in this run." in text
    assert {"results", "cases", "training", "dataset", "quality", "timing"}.isdisjoint(page.ids)
    assert {url[1:] for url in page.urls if url.startswith("#")} <= set(page.ids)


def test_unscored_splits_have_labels_and_predictions_but_neither_errors_nor_cases(folder: Path) -> None:
    names = [path.name for path in (folder / "images").iterdir() if path.name.startswith("arbitrary")]
    assert any("label" in name for name in names)
    assert any("prediction" in name for name in names)
    assert not any("error" in name for name in names)


def test_undefined_values_are_an_em_dash_and_null(data: ReportData, tmp_path: Path) -> None:
    shown = samples("in_domain", 2)
    broken = score("depth", np.stack([s.labels["depth"] for s in shown]), np.zeros((2, 32, 32)), ["a", "b"])
    rows = [replace(broken, split="in_domain")]
    report = replace(data, metrics=metrics_of(rows), tables=rows, samples={})
    text = build_report(report, tmp_path).read_text()
    assert "—" in text
    assert not re.search(r">\s*(nan|none|null|inf)\b", text, flags=re.IGNORECASE)
    numbers = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert numbers["metrics"]["depth"]["in_domain"]["DMP"]["metrics"]["abs_rel"]["mean"] is None


def test_a_split_without_a_valid_label_is_shown_without_scores(tmp_path: Path) -> None:
    nothing = {"depth": np.zeros((32, 32)), "segmentation": np.full((32, 32), 255), "normal": np.zeros((32, 32, 3))}
    shown = [replace(sample, labels=nothing) for sample in samples("in_domain", 2)]
    rows = []
    for task, label in nothing.items():
        predicted = np.stack([sample.predictions[task] for sample in shown])
        for row in ("DMP", "VAE ceiling", "constant"):
            true = np.stack([label, label])
            rows.append(score(task, predicted, true, [s.key for s in shown], split="in_domain", row=row))
    collector = StatisticsCollector()
    for sample in shown:
        collector.update(sample.prompt, labels=nothing)
    report = ReportData(
        title="Nothing",
        config_yaml="",
        metrics=metrics_of(rows),
        tables=rows,
        samples={"in_domain": shown},
        statistics={"in_domain": collector.result()},
    )
    text = build_report(report, tmp_path).read_text()
    assert not re.search(r">\s*(nan|none|null|inf)\b", text, flags=re.IGNORECASE)
    assert "not defined: no label of this split is valid" in text
    assert "of 3 tasks" not in text


def test_metrics_json_holds_the_numbers(folder: Path, data: ReportData) -> None:
    numbers = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert numbers["metrics"] == data.metrics
    assert numbers["training"]["normal"]["final_loss"] == pytest.approx(math.exp(-58 / 20))
    assert numbers["statistics"]["train"]["images"] == 7
    assert numbers["registry"]["depth"][0]["name"] == "abs_rel"
    assert numbers["timing"][1]["cached"] is True
    assert numbers["quality"]["dropped"] == {"train": {"min_std": 37}}


# -------------------------------------------------------------------------------------- tables
def test_the_ceiling_is_shown_but_never_bold(data: ReportData) -> None:
    for table in score_tables(data.metrics, "in_domain"):
        kinds = [row.kind for row in table.rows]
        assert kinds == ["method", "ceiling", "constant"]
        assert not any(cell.best for cell in table.rows[1].cells)
    five = next(table for table in score_tables(data.metrics, "in_domain") if table.groups)
    assert five.heads == ["Acc", "IoU"] * 5
    normals = score_tables(data.metrics, "in_domain")[0]
    assert [cell.best for cell in normals.rows[0].cells] == [True] * 4


def row_of(mean: float | None, low: float, high: float, wins: bool | None) -> dict[str, Any]:
    metrics = {"angular_deg": {"mean": mean, "low": low, "high": high}}
    versus = (
        None
        if wins is None
        else {"metric": "angular_deg", "difference": (mean or 0) - 30, "low": low - 30, "high": high - 30}
    )
    return {"images": 3, "metrics": metrics, "beats_constant": wins, "versus_constant": versus}


@pytest.mark.parametrize(
    ("mean", "low", "high", "wins", "verdict", "position"),
    [
        (10.0, 8.0, 12.0, True, "better than the constant by 20.0° (18.0 to 22.0)", 20 / 25),
        (29.0, 26.0, 32.0, False, "better than the constant by 1.0° (-2.0 to 4.0): within the noise", 1 / 25),
        (35.0, 33.0, 37.0, False, "worse than the constant by 5.0° (3.0 to 7.0)", 0),
        (3.0, 2.0, 4.0, True, "better than the constant by 27.0° (26.0 to 28.0)", 1),
    ],
)
def test_verdicts_in_words(mean: float, low: float, high: float, wins: bool, verdict: str, position: float) -> None:
    rows = {
        "DMP": row_of(mean, low, high, wins),
        "constant": row_of(30, 30, 30, None),
        "VAE ceiling": row_of(5, 5, 5, None),
    }
    card = headlines({"normal": {"in_domain": rows}})[0]
    assert card.standings[0].verdict == verdict
    assert card.standings[0].position == pytest.approx(position)


def test_without_references_there_is_no_position_and_no_verdict() -> None:
    standing = headlines({"normal": {"in_domain": {"DMP": row_of(10, 9, 11, None)}}})[0].standings[0]
    assert standing.position is None
    assert standing.constant == "—"
    assert standing.verdict == "no constant predictor to compare with"


def test_numbers_durations_and_plain_data() -> None:
    assert format_number(1.2345, 2, "°") == "1.23°"
    assert format_number(float("nan"), 2) == format_number(None, 2) == "—"
    assert [duration(s) for s in (0.44, 12.2, 200, 7500, None)] == ["0.4 s", "12 s", "3 min 20 s", "2 h 05 min", "—"]
    assert plain({"a": np.float32("nan"), "b": (np.int64(3), True), 1: Path("x")}) == {
        "a": None,
        "b": [3, True],
        "1": "x",
    }


def test_the_summary_states_what_was_trained(data: ReportData) -> None:
    assert summary_sentence(data) == (
        "Surface normals trained in this run; depth from finished adapters. Training set: 7 images of “bedroom”."
    )


def test_keys_to_show_are_the_gallery_and_the_cases(data: ReportData) -> None:
    split = [table for table in data.tables if table.split == "in_domain"]
    keys = [sample.key for sample in data.samples["in_domain"]]
    wanted = keys_to_show(split, keys, gallery=2)
    assert wanted[:2] == keys[:2]
    assert len(wanted) == len(set(wanted)) <= len(keys)
    worst = split[0].values.sort_values("angular_deg")["key"].iloc[-1]
    assert worst in wanted


# --------------------------------------------------------------------------------------- plots
def test_plots_take_the_pages_colours_and_carry_their_own_ids() -> None:
    curve = pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 0.1]})
    first, second = loss_curve(curve, "one"), loss_curve(curve, "two")
    assert "var(--accent)" in first
    assert "http" not in first
    assert 'role="img"' in first
    assert set(Page(first).ids).isdisjoint(Page(second).ids)
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first)) != set()


def test_a_distribution_marks_its_references_and_survives_odd_values() -> None:
    text = distribution([1.0, 2, float("nan")], {"constant": 5.0, "VAE ceiling": float("nan")}, "Angle (°)", "d")
    assert "var(--constant)" in text
    assert "var(--ceiling)" not in text
    for values in ([], [3.0], [float("nan")]):
        assert distribution(values, {}, "x", "d").startswith("<svg")
