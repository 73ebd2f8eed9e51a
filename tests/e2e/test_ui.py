"""Prefect's bundled interface in a headless Chromium: its pages of deployments, runs and artifacts.

Which browser, and what happens without one: tests/e2e/browser.py.
`make screenshots` runs these tests and writes their screenshots to docs/images/.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest
import yaml
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from dmp_core.config import PipelineConfig, load_config
from dmp_core.stages import plan
from tests.e2e.browser import PATIENCE, api, launched
from tests.e2e.orchestra import ROOT, Orchestra, orchestra, wait_for

pytestmark = pytest.mark.e2e

IMAGES = ROOT / "docs" / "images"
LARGEST = 150_000
SMALL = ["modalities=[normal, depth]", "runtime.device=cpu", "runtime.workers=1"]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


class Window:
    """A page of the interface; records errors in it."""

    def __init__(self, page: api.Page, base: str) -> None:
        self.page, self.base = page, base
        self.wrong: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("response", self._record_error)

    def _record_error(self, answer: api.Response) -> None:
        # 503 is SQLite under load; the interface retries. For a flow's artifact it also requests the task run "".
        nobody = answer.url.endswith("/task_runs/filter") and '"any_":[""]' in (answer.request.post_data or "")
        if answer.status in (422, 500) and not nobody:
            self.wrong.append(f"{answer.status} {answer.url} {answer.request.post_data}")

    def show(self, path: str) -> api.Page:
        self.page.goto(f"{self.base}/v2/{path}", wait_until="domcontentloaded")
        return self.page

    def keep_screenshot(self, name: str, height: int = 900) -> None:
        """Check for errors, then save docs/images/NAME.png if screenshots were requested."""
        self.page.set_viewport_size({"width": 1280, "height": height})
        self.page.wait_for_timeout(3000)  # the timeline draws itself some frames later
        assert self.page.locator("[data-sonner-toast][data-type=error]").count() == 0
        assert not self.wrong
        seen = Image.open(io.BytesIO(self.page.screenshot()))
        assert len(seen.getcolors(1 << 24)) > 20, "an empty page"
        if os.environ.get("DMP_WRITE_SCREENSHOTS"):
            file = IMAGES / f"prefect_{name}.png"
            seen.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
            assert file.stat().st_size <= LARGEST


@pytest.fixture(scope="module")
def browser() -> Iterator[api.Browser]:
    api.expect.set_options(timeout=PATIENCE)
    with launched() as opened:
        yield opened


@pytest.fixture(scope="module")
def prefect(browser, tmp_path_factory) -> Iterator[Orchestra]:
    """Requested after the browser, so that nothing is started without one."""
    with orchestra(tmp_path_factory.mktemp("prefect"), pools=("cpu",)) as started:
        yield started


@pytest.fixture(scope="module")
def run(prefect, tmp_path_factory) -> FlowRun:
    """`pipeline/smoke` with two tasks, done."""
    folder = tmp_path_factory.mktemp("rooms", numbered=False)
    return prefect.end(prefect.submit("pipeline/smoke", workspace=str(folder), overrides=SMALL))


@pytest.fixture
def window(browser, prefect) -> Iterator[Window]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", timezone_id="UTC")
    yield Window(context.new_page(), prefect.url.removesuffix("/api"))
    context.close()


def deployment_id(name: str) -> UUID:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name).id


def flow_name(entrypoint: str) -> str:
    return entrypoint.rpartition(":")[2].replace("_", "-")


def test_deployments_are_listed_with_their_flows_and_tags(window, run):
    def ready() -> api.Locator | None:
        page = window.show("deployments?limit=50")
        api.expect(page.get_by_text(f"{len(DEPLOYMENTS)} Deployments")).to_be_visible()
        rows = page.locator("tbody tr")
        api.expect(rows).to_have_count(len(DEPLOYMENTS))
        return rows if rows.filter(has_text="Not Ready").count() < len(DEPLOYMENTS) else None

    rows = wait_for("the worker to request its pool", ready)
    shown = Counter()
    for text in rows.all_inner_texts():
        words = [word.strip() for word in text.splitlines() if word.strip()]
        shown[words[0], words[1], next(word for word in words if word in ("dag", "data", "experiment", "stage"))] += 1
    wanted = Counter((entry["name"], flow_name(entry["entrypoint"]), entry["tags"][0]) for entry in DEPLOYMENTS)
    assert shown == wanted
    window.keep_screenshot("deployments", height=1800)


def test_the_form_shows_all_settings(window):
    page = window.show(f"deployments/deployment/{deployment_id('generate-dataset/mini')}/run")
    count = page.get_by_label("count (Optional)", exact=True).first
    api.expect(count).to_have_value("24")
    assert count.get_attribute("min") == "1"
    api.expect(page.get_by_text("subjects of the images, used in turn.")).to_be_visible()
    for place in ("generate-dataset", "cpu", "normal"):
        api.expect(page.get_by_text(place, exact=True).first).to_be_visible()
    window.keep_screenshot("form")

    sections = set(PipelineConfig.model_json_schema()["properties"])
    labels = {text.removesuffix(" (Optional)") for text in page.locator("form label").all_inner_texts()}
    assert sections <= labels
    api.expect(page.get_by_text("Paths traced for each pixel", exact=False)).to_be_attached()
    page.get_by_label("Select image_format").click()
    choices = page.get_by_role("option")
    api.expect(choices).to_have_text(["png", "jpg"])


def test_the_form_rejects_invalid_values_and_submits_valid_ones(window, tmp_path):
    deployment = deployment_id("generate-dataset/smoke")
    page = window.show(f"deployments/deployment/{deployment}/run")
    count = page.get_by_label("count (Optional)", exact=True).first
    api.expect(count).to_have_value("4")
    page.get_by_label("workspace (Optional)", exact=True).fill(str(tmp_path))
    count.fill("0")
    page.get_by_role("button", name="Submit").click()
    api.expect(count).to_be_focused()
    assert not count.evaluate("field => field.checkValidity()")

    count.fill("3")

    def submit() -> str | None:
        with page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as answered:
            page.get_by_role("button", name="Submit").click()
        return answered.value.json()["id"] if answered.value.ok else None

    made = UUID(wait_for("the server to take the run", submit))
    with get_client(sync_client=True) as client:
        given = client.read_flow_run(made).parameters
        client.set_flow_run_state(made, Cancelling())
    assert (given["keywords"], given["count"], given["workspace"]) == (["bedroom"], 3, str(tmp_path))
    assert PipelineConfig.model_validate(given["config"]) == load_config("smoke")


def test_a_run_page_shows_logs_and_artifacts(window, run):
    assert run.state.is_completed(), run.state.message
    page = window.show(f"runs/flow-run/{run.id}")
    api.expect(page.get_by_text(run.name).first).to_be_visible()
    api.expect(page.get_by_text("Completed").first).to_be_visible()
    for line in ("prompts: 4 made in", "train: 2 made in", "report: 1 made in"):
        api.expect(page.get_by_role("log").get_by_text(line)).to_be_attached()
    window.keep_screenshot("run", height=1100)
    page.get_by_role("tab", name="Subflow Runs").click()
    for stage in ("prompts", "images", "train", "report smoke"):
        api.expect(page.get_by_text(f"{stage}: {run.name}").first).to_be_visible()


def open_artifact(window: Window, key: str) -> api.Page:
    with get_client(sync_client=True) as client:
        (found,) = [artifact for artifact in client.read_artifacts() if artifact.key == key]
    return window.show(f"artifacts/artifact/{found.id}")


def test_the_report_is_a_table_of_scores_that_names_its_page(window, run):
    page = open_artifact(window, "report-smoke")
    table = page.locator("table").first
    api.expect(table.locator("th")).to_have_text(["task", "metric", "split", "DMP", "constant", "VAE ceiling"])
    api.expect(table.locator("tbody tr")).to_have_count(4)
    cells = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
    assert {row[0].strip() for row in cells} == {"Surface normals", "Depth"}
    assert all(re.match(r"\s*[\d.]+", row[3]) for row in cells)
    api.expect(page.get_by_text(re.compile(r"/rooms/reports/.+/index\.html$"))).to_be_visible()
    window.keep_screenshot("report")


def test_artefacts_are_a_table_with_paths(window, run):
    page = open_artifact(window, "artefacts-smoke")
    for column in ("id", "fingerprint", "cached", "samples", "seconds", "path"):
        api.expect(page.get_by_role("columnheader", name=column, exact=True)).to_be_visible()
    first, *_, last = plan(load_config("smoke", None, SMALL))
    api.expect(page.get_by_role("cell", name=first.id, exact=True)).to_be_visible()
    window.keep_screenshot("artefacts")
    page.get_by_role("textbox", name="Search").fill(last.id)
    api.expect(page.get_by_role("cell", name=last.id, exact=True)).to_be_visible()


def test_progress_reached_its_end(window, run):
    page = open_artifact(window, "progress-smoke-images-train")
    api.expect(page.get_by_text("images/train: 4 of 4").first).to_be_visible()
    api.expect(page.get_by_text(re.compile(r"\b100(\.0)?\s*%")).first).to_be_visible()
    assert not window.wrong
