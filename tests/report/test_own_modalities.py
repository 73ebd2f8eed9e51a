"""The report and the dataset card of modalities that a configuration defines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.experiments import tables
from dmp_core.experiments.settings import Variant
from dmp_core.modalities import BUILT_IN, Modality, modalities_of
from dmp_core.report import ReportData, Sample, StatisticsCollector, TrainingRecord, build_report, readme_figure
from dmp_core.report.dataset_card import card_from_manifests
from dmp_core.report.dataset_record import RECORD, record_schema, uniform_record
from dmp_core.scoring.protocol import aggregate, score
from dmp_core.store.workspace import Manifest
from tests.constant_rows import score_constant

OWN: dict[str, Any] = {
    "roughness": {"kind": "scalar"},
    "thermal": {"kind": "scalar", "range": [-20, 80], "unit": "°C", "title": "Heat <i>|$x_1$"},
    "defects": {"kind": "classes", "classes": ["none", "scratch", "</details>*dent*", "stain|oil"]},
    "lambda": {"kind": "colour"},
    "flow": {"kind": "vector"},
}
CONFIG = {"own_modalities": OWN}


@pytest.fixture(scope="module")
def own() -> dict[str, Modality]:
    return {modality.name: modality for modality in modalities_of(CONFIG) if modality.name in OWN}


def labels(seed: int, size: int = 24) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, (size, size)).astype(np.uint8)
    classes[0, 0] = 255
    heat = rng.uniform(-20, 80, (size, size)).astype(np.float32)
    heat[:2] = np.nan
    vectors = rng.normal(size=(size, size, 3))
    return {
        "roughness": rng.uniform(0, 1, (size, size)).astype(np.float32),
        "thermal": heat,
        "defects": classes,
        "lambda": rng.uniform(0, 1, (size, size, 3)).astype(np.float32),
        "flow": (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def data(own: Mapping[str, Modality]) -> ReportData:
    shown, rows, statistics = [], [], StatisticsCollector(modalities_of(CONFIG))
    for index in range(3):
        true, predicted = labels(index), labels(100 + index)
        predicted["thermal"] = np.nan_to_num(predicted["thermal"], nan=0.0)
        statistics.update("a plate", labels=true)
        rgb = np.full((24, 24, 3), 90, np.uint8)
        shown.append(Sample(f"in_domain-{index:08d}", "a plate", rgb, true, predicted))
    keys = [sample.key for sample in shown]
    for name, modality in own.items():
        true, predicted = (
            np.stack([held[name] for held in both])
            for both in zip(*((s.labels, s.predictions) for s in shown), strict=True)
        )
        rows.append(score(modality, predicted, true, keys, split="in_domain"))
        rows.append(score(modality, predicted, true, keys, split="in_domain", row="VAE ceiling"))
        rows.append(score_constant(modality, modality.constant(iter(true)), true, keys, split="in_domain"))
    return ReportData(
        title="Parts",
        config_yaml="",
        modalities=modalities_of(CONFIG),
        metrics=aggregate(rows, samples=50),
        tables=rows,
        samples={"in_domain": shown},
        training={"thermal": TrainingRecord("trained in this run")},
        statistics={"train": statistics.result()},
    )


def test_the_page_shows_them_like_any_other(data: ReportData, own: Mapping[str, Modality], tmp_path: Path) -> None:
    page = build_report(data, tmp_path).read_text()
    for words in ("-20 °C", "80 °C", "RMSE", "mIoU", "red: to the right, green: up, blue: toward the viewer"):
        assert words in page, words
    assert "Heat &lt;i&gt;|$x_1$" in page
    assert "<i>|" not in page
    assert "&lt;/details&gt;*dent*" in page
    assert "1.0 m" not in page  # no depth, no colour bar for it
    written = {path.name for path in (tmp_path / "images").iterdir()}
    assert {
        f"in_domain-00000000-{name}-{kind}.png" for name in own for kind in ("label", "prediction", "error")
    } <= written
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert list(numbers["registry"]) == [*BUILT_IN, *OWN]
    assert numbers["registry"]["thermal"][0]["unit"] == " °C"
    assert set(numbers["statistics"]["train"]["class_pixels"]) == set(OWN["defects"]["classes"])
    assert readme_figure(data.samples, modalities=data.modalities).width > 10 * 112


def test_pixels_of_several_class_maps_are_counted_separately() -> None:
    collector = StatisticsCollector(modalities_of(CONFIG))
    collector.update("", labels={"defects": np.array([[1, 1], [3, 255]]), "segmentation": np.array([[7, 0], [0, 0]])})
    result = collector.result()
    assert result.class_pixels == pytest.approx(
        {
            "Segmentation: wall": 3 / 4,
            "Segmentation: bed": 1 / 4,
            "Defects: scratch": 2 / 3,
            "Defects: stain|oil": 1 / 3,
        }
    )


def test_an_experiment_has_columns_for_them(data: ReportData) -> None:
    primary = (("thermal", "rmse"), ("normal", "angular_deg"))
    cells = [("dmp", "DMP", name, "in_domain", metric, 0.5, 0.4, 0.6) for name, metric in primary]
    names = ["variant", "method", "task", "split", "metric", "value", "ci_low", "ci_high"]
    scores = pd.DataFrame(cells, columns=names)
    table = tables.build("All", "primary", scores, {"dmp": Variant(title="DMP")}, data.modalities)
    assert [column.place for column in table.columns] == [
        ("in_domain", "normal", "angular_deg"),
        ("in_domain", "thermal", "rmse"),
    ]
    rows = [line for line in tables.markdown(table).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4}


# ---------------------------------------------------------------------------------- the dataset
def manifest(*columns: str) -> Manifest:
    used = {name: OWN[name] for name in columns if name in OWN}
    return Manifest(
        stage="shards",
        stage_version=1,
        name="parts/train",
        fingerprint="abcdef012345",
        config={"dataset": "parts", "split": "train", "palette": "default"}
        | ({"own_modalities": used} if used else {}),
        inputs={"images": "1", "quality_train_image": "2", **dict.fromkeys(columns, "3")},
        files=[],
        samples=3,
        seconds=1.0,
        created="",
    )


def test_the_card_describes_the_modalities_of_all_splits() -> None:
    card = card_from_manifests({"train": manifest("thermal", "depth"), "in_domain": manifest(*OWN)})
    _, head, body = card.split("---\n", 2)
    header = yaml.safe_load(head)
    columns = {column["name"]: column for column in header["dataset_info"]["features"]}
    assert columns["thermal.npy"]["list"] == columns["depth.npy"]["list"] == {"list": "float16"}
    assert columns["roughness.png"]["dtype"] == columns["defects.png"]["dtype"] == "image"
    record = {entry["name"]: entry for entry in columns["json"]["struct"]}
    listed = [entry["name"] for entry in record["labels"]["struct"]]
    assert listed == [*BUILT_IN, "thermal", "roughness", "defects", "lambda", "flow"]
    assert "| `{key}.thermal.npy` | float16, shape (H, W) | Values from -20 to 80 °C;" in body
    assert "`train` has labels for depth, thermal only." in body
    assert "0 none, 1 scratch, 2 &lt;/details&gt;\\*dent\\*, 3 stain&#124;oil" in body
    assert "Colour code for training" not in body  # the palette of ADE20K's classes


def test_the_cards_code_has_a_valid_name_for_each() -> None:
    card = card_from_manifests({"train": manifest(*OWN)})
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "lambda_map = " in code


def test_labels_of_a_removed_package_are_not_ignored() -> None:
    with pytest.raises(InputError, match="labels for edge; install the package"):
        card_from_manifests({"train": manifest("normal", "edge")})


def test_a_record_lists_them_after_the_built_in_ones(own: Mapping[str, Modality]) -> None:
    schema = record_schema([own["defects"], own["thermal"]])
    assert list(schema["labels"]) == [*BUILT_IN, "defects", "thermal"]
    assert {name: schema[name] for name in RECORD if name not in ("labels", "quality")} == {
        name: RECORD[name] for name in RECORD if name not in ("labels", "quality")
    }
    quality = {"thermal": {"labelled": 1, "flip_mse": None}, "defects": {"classes": 3}}
    record = uniform_record({"key": "k"}, {"thermal": "float16"}, "", quality, schema)
    assert record["quality"]["thermal"] == {
        "labelled": 1.0,
        "label_mean": -9999.0,
        "label_std": -9999.0,
        "label_clipped": -9999.0,
        "flip_mse": -9999.0,
    }
    assert record["quality"]["defects"]["classes"] == 3
    with pytest.raises(ValueError, match="labels: thermal not listed"):
        uniform_record({"key": "k"}, {"thermal": "float16"}, "", {})


@pytest.mark.parametrize(("field", "text"), [("title", "two\nlines"), ("unit", "K\x1b[2J"), ("title", "x" * 101)])
def test_words_are_one_short_line(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=field):
        modalities_of({"own_modalities": {"thermal": {"kind": "scalar", field: text}}})
