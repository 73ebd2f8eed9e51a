"""What the page is read with: alternative texts, values under the pointer, many samples, one file, data in plots."""

from __future__ import annotations

import base64
import html as escapes
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.report import ReportData, Sample, build_report
from dmp_core.report.build import draw_plots, render_page
from dmp_core.report.gallery import ImageFile, Panel, Shown, SplitGallery
from dmp_core.report.plots import distribution
from dmp_core.report.values import LONGEST, quantities, values_script
from tests.report.rooms import metrics_of, room, samples, tables
from tests.report.test_report import Page
from tests.test_text import HOSTILE

MANY = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = samples("in_domain", 10, size=16)
    rows = tables("in_domain", shown)
    data = ReportData("t", "", metrics_of(rows), tables=rows, samples={"in_domain": shown}, gallery=10)
    return build_report(data, tmp_path_factory.mktemp("report")).parent


def test_alternative_texts_tell_the_images_apart(folder: Path) -> None:
    images = Page((folder / "index.html").read_text()).images
    files = {(image["src"], image["alt"]) for image in images}
    assert len(files) == len({alt for _, alt in files}) == len({src for src, _ in files})


def test_the_single_file_names_no_other_and_is_cut(folder: Path) -> None:
    text = (folder / "single.html").read_text()
    page = Page(text)
    assert all(url.startswith(("#", "data:")) for url in page.urls)
    assert len(re.findall("data-classes", text)) == 8
    assert len(re.findall("data-classes", (folder / "index.html").read_text())) == 10
    embedded = next(str(image["src"]) for image in page.images)
    kind, _, content = embedded.partition(";base64,")
    assert base64.b64decode(content) in [path.read_bytes() for path in (folder / "images").iterdir()], kind


# -------------------------------------------------------------------------------------- values
def decoded(script: str) -> dict[str, Any]:
    """As the page's own script reads them: modality → kind → values (H, W, 3), NaN where there is no label."""
    maps = json.loads(script.removeprefix("reportValues(").removesuffix(");\n"))
    return {name: {kind: points(entry) for kind, entry in kinds.items()} for name, kinds in maps.items()}


def points(entry: dict[str, Any]) -> NDArray[np.float64]:
    codes = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["png"])))).astype(float)
    values = entry["low"] + (entry["high"] - entry["low"]) * codes[..., :3] / 255
    return np.where(codes[..., 3:] > 0, values, np.nan)


def shown_sample(size: int) -> Sample:
    arrays = room(3, size)
    return Sample("k", "", arrays["rgb"], {n: arrays[n] for n in BUILT_IN}, {n: room(4, size)[n] for n in BUILT_IN})


def test_values_are_those_of_the_map_to_a_255th_of_its_range() -> None:
    sample = shown_sample(32)
    maps = decoded(values_script(sample, [find_modality(name) for name in BUILT_IN], True))
    for name in BUILT_IN:
        for kind, array in (("label", sample.labels[name]), ("prediction", sample.predictions[name])):
            held = maps[name][kind]
            if name == "segmentation":
                np.testing.assert_array_equal(held[..., 0] + 256 * held[..., 1], array)
            else:
                expected = array if array.ndim == 3 else array[..., None]
                step = np.ptp(array) / 255
                np.testing.assert_allclose(held[..., : expected.shape[-1]], expected, atol=step / 2 + 1e-4)
    wrong = sample.labels["segmentation"] != sample.predictions["segmentation"]
    np.testing.assert_array_equal(maps["segmentation"]["error"][..., 0] > 0, wrong)


def test_points_of_large_maps_are_pixels_not_means() -> None:
    label = np.arange(300 * 150, dtype=float).reshape(300, 150) % 7 + 1
    script = values_script(
        Sample("k", "", np.zeros((300, 150, 3), np.uint8), {"depth": label}), [find_modality("depth")], True
    )
    held = decoded(script)["depth"]["label"][..., 0]
    assert held.shape == (LONGEST, LONGEST // 2)
    assert np.abs(held - held.round()).max() < 0.02
    assert decoded(script)["depth"].keys() == {"label"}


def test_pixels_without_a_label_have_no_value() -> None:
    label = np.full((8, 8), 2.0)
    label[0], label[1], label[2] = 0, np.nan, np.inf
    for array in (label, np.zeros((8, 8))):
        script = values_script(
            Sample("k", "", np.zeros((8, 8, 3), np.uint8), {"depth": array}), [find_modality("depth")], True
        )
        held = decoded(script)["depth"]["label"]
        np.testing.assert_array_equal(np.isfinite(held[..., 0]), np.isfinite(array) & (array > 0))
    assert quantities([find_modality("depth")])["depth"]["unit"] == "metres"


# ---------------------------------------------------------------------------------------- many
def test_a_thousand_samples_are_a_small_page_of_lazy_images(tmp_path: Path) -> None:
    def picture(index: int, kind: str, modality: str) -> ImageFile:
        name = f"in_domain-{index:08d}-{modality or 'rgb'}-{kind}"
        return ImageFile(f"images/{name}.png", f"{modality} {kind} of in_domain-{index:08d}", 8, 8, kind, modality)

    def entry(index: int) -> Shown:
        panels = [
            Panel(m, *(picture(index, kind, m.name) for kind in ("label", "prediction", "error")), "1°", 1.0)
            for m in map(find_modality, BUILT_IN)
        ]
        key = f"in_domain-{index:08d}"
        return Shown(key, "a room", "room", picture(index, "image", ""), panels, "", f"values/{key}.js", ["wall"])

    shown = [entry(index) for index in range(MANY)]
    gallery = SplitGallery("in_domain", "In-domain", True, shown, {}, [], [], [], [], "none")
    data = ReportData("t", "", {})
    text = render_page(data, [gallery], draw_plots(data))
    assert len(text.encode()) < 6e6
    assert text.count('<img class="zoom"') == text.count('loading="lazy"') > 16 * MANY
    # A browser makes elements of a few samples; the others are text until they are needed.
    assert len(Page(text).images) < 16 * 30
    later = re.findall(r'<script type="text/html" class="later">(.*?)</script>', text, flags=re.S)
    assert len(later) == MANY - 24
    assert not Page(later[-1]).unbalanced


def test_hostile_words_stay_text_in_samples_that_become_elements_later(tmp_path: Path) -> None:
    text = " ".join([*HOSTILE, "</script><img src=x onerror=alert(1)>", "<!-- <script>"])
    shown = [replace(sample, prompt=text, keyword=text) for sample in samples("in_domain", 26, size=8)]
    plain = samples("in_domain", 26, size=8)
    hostile, sound = (
        Page(build_report(ReportData("t", "", {}, samples={"in_domain": s}, gallery=26), tmp_path / n).read_text())
        for n, s in (("a", shown), ("b", plain))
    )
    assert (hostile.ids, hostile.unbalanced, hostile.urls) == (sound.ids, [], sound.urls)
    page = (tmp_path / "a" / "index.html").read_text()
    later = re.findall(r'class="later">(.*?)</script>', page, flags=re.S)
    assert len(later) == 2
    assert len(Page(later[0]).images) == 16
    keyword = re.search('data-keyword="([^"]*)"', later[0])
    assert keyword is not None
    assert "onerror" in escapes.unescape(keyword[1])


# --------------------------------------------------------------------------------------- plots
def test_a_plot_holds_what_it_draws() -> None:
    svg = distribution([1.0, 2.5, float("nan")], {"constant": 5.0}, "<b> & ]]>", "d")
    held = re.search("<metadata>(.*)</metadata></svg>", svg)
    assert held is not None
    assert json.loads(escapes.unescape(held[1])) == {
        "quantity": "<b> & ]]>",
        "values": [1.0, 2.5],
        "lines": {"constant": 5.0},
    }
