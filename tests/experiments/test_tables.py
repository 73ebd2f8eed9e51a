"""Tables in the paper's layout, from invented scores."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from dmp_core.experiments import tables
from dmp_core.experiments.collect import COLUMNS
from dmp_core.experiments.paper import paper_table
from dmp_core.experiments.settings import Variant


@pytest.mark.parametrize(
    ("table", "row", "place", "printed"),
    [
        ("table1", "DMP", ("in_domain", "normal", "l1"), "0.0514"),
        ("table1", "DMP", ("out_of_domain", "depth", "rmse_relative"), "0.1360"),
        ("table1", "IP2P (hard)", ("in_domain", "normal", "angular_dmp_compat"), "0.5468"),
        ("table1", "VISII", ("in_domain", "depth", "delta1"), "0.4405"),
        ("table2", "SPADE", ("in_domain", "segmentation", "iou_window"), "0.5627"),
        ("table2", "DMP", ("in_domain", "segmentation", "five_iou"), "0.6127"),
        ("table3", "SPADE", ("out_of_domain", "shading", "mse"), "0.0040"),
        ("table4", "Predicting x", ("out_of_domain", "normal", "angular_dmp_compat"), "0.2764"),
    ],
)
def test_the_papers_numbers_are_as_printed(table, row, place, printed):
    assert paper_table(table)[row][place] == printed


@pytest.mark.parametrize(
    ("table", "rows", "columns"), [("table1", 8, 10), ("table2", 7, 12), ("table3", 8, 4), ("table4", 3, 4)]
)
def test_the_papers_tables_are_complete_and_fit_the_layout(table, rows, columns):
    printed = paper_table(table)
    assert len(printed) == rows
    places = [column.place for column in tables.layout(table, pd.DataFrame(columns=list(COLUMNS)))]
    assert len(places) == columns
    assert all(list(row) == places for row in printed.values())


def test_the_papers_means_are_those_of_its_classes():
    """Table 2's last columns against its others: a slip in the transcription would show."""
    for row in paper_table("table2").values():
        for kind in ("acc", "iou"):
            values = [float(v) for (_, _, name), v in row.items() if name.startswith(f"{kind}_")]
            assert sum(values) / 5 == pytest.approx(float(row["in_domain", "segmentation", f"five_{kind}"]), abs=2e-3)


@pytest.fixture
def built() -> tables.PaperTable:
    scores = pd.DataFrame(
        [
            ("dmp", "DMP", "albedo", "in_domain", "mse", 0.0123, 0.01, 0.015),
            ("dmp", "DMP", "shading", "in_domain", "mse", 0.0234, float("nan"), float("nan")),
            ("odd", "Odd & 100% new_one", "albedo", "in_domain", "mse", 0.5, 0.4, 0.6),
            ("ceiling", "VAE ceiling", "albedo", "in_domain", "mse", 0.001, 0.0009, 0.0011),
            ("elsewhere", "Not shown", "albedo", "in_domain", "mse", 0.7, 0.6, 0.8),
        ],
        columns=["variant", "method", "task", "split", "metric", "value", "ci_low", "ci_high"],
    )
    variants = {"dmp": Variant(title="DMP"), "odd": Variant(title="Odd & 100% new_one"), "idle": Variant(title="Idle")}
    return tables.build("Table 3. Images <and> more", "table3", scores, variants)


def test_rows_come_in_the_papers_order_with_its_numbers_below(built):
    names = [line.name for line in built.lines]
    assert names[:4] == ["SPADE", "SPADE (paper)", "DRIT++", "DRIT++ (paper)"]
    assert names[-5:] == ["DMP", "DMP (paper)", "Odd & 100% new_one", "Idle", "VAE ceiling"]
    line = {line.name: line for line in built.lines}
    assert line["DMP"].cells == [("0.0123", "0.0100–0.0150"), ("0.0234", ""), ("—", ""), ("—", "")]
    assert [value for value, _ in line["DMP (paper)"].cells] == ["0.0041", "0.0051", "0.0064", "0.0070"]


def test_variants_not_run_are_marked_and_have_no_number(built):
    missing = {line.name: line for line in built.lines if line.kind == "missing"}
    assert set(missing) == {"SPADE", "DRIT++", "SDEdit", "DDIB", "IP2P (hard)", "IP2P (learned)", "VISII", "Idle"}
    assert {value for line in missing.values() for value, _ in line.cells} == {"not run"}


def test_markdown_has_one_cell_per_column(built):
    rows = [line for line in tables.markdown(built).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {6}
    assert len(rows) == 2 + len(built.lines)


def test_latex_is_balanced_and_escaped(built):
    text = tables.latex(built)
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert begun == ended[::-1] == ["table", "tabular"]
    plain = re.sub(r"\\[{}&%_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    body = [line for line in plain.splitlines() if line.endswith(r"\\")]
    spans = [sum(map(int, re.findall(r"multicolumn\{(\d+)\}", line))) or line.count("&") for line in body]
    assert set(spans) == {4}
    assert text.isascii()
    assert r"Odd \& 100\% new\_one" in text


def test_html_is_well_formed_and_escaped(built):
    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag, attrs):
            if tag != "br":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(tables.html(built))
    assert not parser.open
    assert "&lt;and&gt;" in tables.html(built)
