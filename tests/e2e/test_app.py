"""`dmp app` in a headless Chromium: one image is predicted; bad labels are found and rejected by keyboard alone.

`make screenshots` writes docs/images/app_*.png. DMP_APP_ROOMS: number of rendered rooms, of which a tenth are spoilt.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.render import configure_threads, render_prompt
from dmp_core.requests.predictor import Predictor
from dmp_core.store import open_dataset
from tests.app.rooms import configuration, dataset_of
from tests.e2e.browser import HEADLESS, PATIENCE, api, launched

if not os.environ.get("DMP_E2E"):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install '.[app]'")
pytestmark = pytest.mark.e2e

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LARGEST = 200_000
ROOMS = int(os.environ.get("DMP_APP_ROOMS", "200"))
BAD = set(range(3, ROOMS, 10))
UNIT = 10.0
"""Spoilt depths are in decimetres."""
FARTHEST = 15.0
"""Metres: no rendered room is as deep."""
FLAGS = [
    *(flag for flag in HEADLESS if flag != "--disable-gpu"),
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
"""WebGL without a GPU."""


def key(index: int) -> str:
    return f"train-{index:08d}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered rooms with their labels next to them."""
    configure_threads(1)
    folder, lines = tmp_path_factory.mktemp("photos") / "train", []
    folder.mkdir()
    for index in range(ROOMS):
        keyword = ("bedroom", "kitchen")[index % 2]
        colour = ("red", "blue", "green")[index % 3]
        prompt = f"A {keyword} with a {colour} rug in warm light"
        made = render_prompt(prompt, keyword, index, resolution=64, samples_per_pixel=8, max_depth=4)
        name = f"{index:04d}"
        Image.fromarray(made.rgb).save(folder / f"{name}.png")
        for task in BUILT_IN:
            modality, label = find_modality(task), getattr(made, task)
            spoilt = label * UNIT if task == "depth" and index in BAD else label
            (folder / f"{name}.{modality.member}").write_bytes(modality.encode(modality.truth(spoilt)))
        lines.append(json.dumps({"file_name": f"{name}.png", "prompt": prompt, "keyword": keyword}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def workspace(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace", numbered=False)
    dataset_of(configuration(photos), folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[api.Browser]:
    api.expect.set_options(timeout=PATIENCE)
    with launched(FLAGS) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(browser: api.Browser, workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of this workspace; requested after the browser, so that nothing is made without one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "app.log"
    command = [sys.executable, "-m", "dmp_core.cli", "app", "--workspace", workspace.name, "--port", str(port)]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=workspace.parent, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            line = server.stdout.readline()
            assert f"http://127.0.0.1:{port}" in line, log.read_text()
            yield line.split()[0]
        finally:
            server.terminate()
            assert server.wait(60) == 143, log.read_text()  # ended by its own rules


@pytest.fixture
def page(browser: api.Browser, address: str) -> Iterator[api.Page]:
    """Open, on its first tab; afterwards it has asked no other machine for anything, and has had no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", timezone_id="UTC")
    opened, wrong = context.new_page(), []
    opened.set_default_timeout(PATIENCE)
    own = (address, address.replace("http", "ws", 1), "data:", "blob:")
    opened.on("request", lambda request: request.url.startswith(own) or wrong.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(address)
    api.expect(opened.locator("#predict-start")).to_be_visible()
    yield opened
    context.close()
    assert not wrong


def keep_screenshot(page: api.Page, name: str, height: int) -> None:
    """Save docs/images/NAME.png if screenshots were requested; it is not empty in any case."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(3000)
    seen = Image.open(io.BytesIO(page.screenshot()))
    assert len(seen.getcolors(1 << 24)) > 20, "an empty page"
    if os.environ.get("DMP_WRITE_SCREENSHOTS"):
        file = IMAGES / f"{name}.png"
        seen.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
        assert file.stat().st_size <= LARGEST


def tab_to(page: api.Page, selector: str) -> None:
    """Press Tab until the focus is in this element."""
    for _ in range(60):
        if page.evaluate("selector => !!document.activeElement.closest(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached by Tab")


# --------------------------------------------------------------------------------------- browse
def test_bad_labels_are_found_and_rejected_by_keyboard_alone(page: api.Page, photos: Path, workspace: Path) -> None:
    status, rejects = page.locator("#browse-status"), workspace / "datasets" / "rooms" / "rejects.txt"
    tab_to(page, "[role=tab]:not([aria-selected=true])")
    page.keyboard.press("Enter")
    api.expect(status).to_contain_text(f"1 of {ROOMS} · {key(0)}")
    tab_to(page, "#browse-score")
    page.keyboard.type("depth.far")
    page.keyboard.press("Enter")
    api.expect(status).to_contain_text("depth.far")
    lowest = re.search(r"depth\.far [\d.e+]+", status.inner_text())[0]
    tab_to(page, "#browse-highest")
    page.keyboard.press("Space")
    api.expect(status).not_to_contain_text(lowest)
    assert page.locator("ul[role=listbox]").count() == 0, "a list is open"
    for number in range(1, ROOMS + 1):  # the deepest first, as long as no room can be so deep
        api.expect(status).to_contain_text(f"{number} of {ROOMS} · train-")
        api.expect(status).to_contain_text("depth.far")
        if float(re.search(r"depth\.far ([\d.e+]+)", status.inner_text())[1]) < FARTHEST:
            break
        page.keyboard.press("x")
        api.expect(status).to_contain_text("marked as bad")
        if number == 2:
            keep_screenshot(page, "app_browse", 760)
        page.keyboard.press(("j", "ArrowRight")[number % 2])
    assert sorted(rejects.read_text().split()) == sorted(key(index) for index in BAD)

    good = status.inner_text()
    page.keyboard.press("x")  # a mistake, and its repair
    api.expect(status).to_contain_text("marked as bad")
    assert len(rejects.read_text().split()) == len(BAD) + 1
    page.keyboard.press("x")
    api.expect(status).not_to_contain_text("marked as bad")
    assert status.inner_text() == good
    page.keyboard.press("k")
    api.expect(status).to_contain_text(f"{len(BAD)} of {ROOMS}")

    merged = dataset_of(configuration(photos, f"quality.rejects_file={rejects}"), workspace)
    kept = [sample["__key__"] for sample in open_dataset(str(merged / "train"))]
    assert kept == [key(index) for index in range(ROOMS) if index not in BAD]


def test_filters_narrow_what_is_shown_and_letters_can_be_typed(page: api.Page) -> None:
    page.get_by_role("tab", name="Browse").click()
    status = page.locator("#browse-status")
    api.expect(status).to_contain_text(f"1 of {ROOMS}")
    before = status.inner_text()
    word = page.locator("#browse-word textarea, #browse-word input").first
    word.click()
    page.keyboard.type("jxk")
    api.expect(status).to_contain_text("No sample passes the filters")
    word.fill("RED")
    reds = sum(index % 3 == 0 for index in range(ROOMS))
    api.expect(status).to_contain_text(f"1 of {reds} · {key(0)}")
    api.expect(status).to_contain_text("red rug")
    assert page.locator("#browse-figures figure").count() == 1 + len(BUILT_IN)
    assert status.inner_text().splitlines()[-1] == before.splitlines()[-1], "typing marks nothing"
    for alt in ("image", *BUILT_IN):
        assert page.locator(f'#browse-figures img[alt="{alt} of {key(0)}"]').count() == 1


def test_a_sample_is_marked_by_mouse(page: api.Page) -> None:
    page.get_by_role("tab", name="Browse").click()
    status = page.locator("#browse-status")
    page.locator("#browse-next").click()
    api.expect(status).to_contain_text(key(1))
    page.locator("#browse-mark").click()
    api.expect(status).to_contain_text("marked as bad")
    page.locator("#browse-mark").click()
    api.expect(status).not_to_contain_text("marked as bad")


# -------------------------------------------------------------------------------------- predict
def test_one_image_is_predicted_compared_relit_and_downloaded(page: api.Page, photos: Path, tmp_path: Path) -> None:
    photo = photos / "0000.png"
    page.locator("#predict-image input[type=file]").set_input_files(photo)
    api.expect(page.locator("#predict-image img")).to_be_visible()
    page.locator("#predict-start").click()
    captions = page.locator("#predict-maps figcaption")
    api.expect(captions).to_have_text(["image", *BUILT_IN])
    api.expect(page.locator("#predict-slider img").first).to_be_visible()
    api.expect(page.locator("#predict-relief canvas")).to_be_visible()

    links = page.locator("#predict-raw a[download]")
    api.expect(links).to_have_count(len(BUILT_IN))
    direct = Predictor.from_preset("mini")(str(photo))
    for number, name in enumerate(BUILT_IN):
        with page.expect_download() as download:
            links.nth(number).click()
        download.value.save_as(tmp_path / f"{name}.npy")
        assert download.value.suggested_filename == f"0000.{name}.npy"
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), direct[name], rtol=1e-4, atol=1e-4)

    relit = page.locator("#predict-relit img")
    before = relit.get_attribute("src")
    page.locator("#predict-azimuth input[type=range]").fill("-120")
    api.expect(relit).not_to_have_attribute("src", before)
    keep_screenshot(page, "app_predict", 1400)


def test_without_an_image_the_page_says_what_to_do(page: api.Page) -> None:
    page.locator("#predict-start").click()
    api.expect(page.get_by_text("Drop an image first.")).to_be_visible()
