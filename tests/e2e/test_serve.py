"""Every deployment from one process, as on a laptop; and what automations, the interface and a user then see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings

from dmp_core.config import load_config
from dmp_core.stages import plan
from dmp_core.store import Workspace
from tasks.events import PUBLISHED, url_of
from tests.e2e.orchestra import Orchestra, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OVERRIDES = ["modalities=[normal]", "runtime.device=cpu", "runtime.workers=1"]
SENT = "runtime.deployments={train: train/gpu}"
SMOKE = load_config("smoke", None, OVERRIDES)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server without any pool, and the process that serves, which started in a folder of its own."""
    made = Orchestra(tmp_path_factory.mktemp("prefect"))
    process = None
    try:
        made.start()
        with (made.home / "serve.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.serve"], cwd=made.home, env=made.env, stdout=log, stderr=log
            )
        wait_for("the process that serves", lambda: "train/gpu" in made.log("serve"))
        with temporary_settings({PREFECT_API_URL: made.url}):
            yield made
    finally:
        if process is not None:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(60)
        made.kill("server")


def events() -> list[dict[str, Any]]:
    """The events of artefacts, oldest first."""
    with get_client(sync_client=True) as client:
        wanted = {"filter": {"event": {"name": [PUBLISHED]}, "order": "ASC"}, "limit": 50}
        found: list[dict[str, Any]] = client.request("POST", "/events/filter", json=wanted).json()["events"]
        return found


def test_a_run_sends_one_event_per_artefact_and_links_its_report(served: Orchestra) -> None:
    wanted = {"config": SMOKE.model_dump(mode="json"), "workspace": "runs/laptop", "overrides": [SENT]}
    ended = served.end(served.submit("pipeline/smoke", **wanted))
    assert ended.state.is_completed(), ended.state.message
    place, nodes = Workspace(served.home / "runs" / "laptop"), plan(SMOKE)
    urls = {url_of(node.artefact(place).address): node for node in nodes}
    sent = wait_for("all events", lambda: found if len(found := events()) >= len(nodes) else None)
    assert sorted(event["resource"]["prefect.resource.id"] for event in sent) == sorted(urls)
    for event in sent:
        inputs = {
            url_of(node.artefact(place).address)
            for node in urls[event["resource"]["prefect.resource.id"]].inputs.values()
        }
        related = event["related"]
        assert {each["prefect.resource.id"] for each in related if each["prefect.resource.role"] == "asset"} == inputs
        assert "flow-run" in {each["prefect.resource.role"] for each in related}
    with get_client(sync_client=True) as client:
        links = {artifact.key: artifact.data for artifact in client.read_artifacts()}
    page = next(f"{url}/index.html" for url, node in urls.items() if node.stage == "report")
    assert links["report-smoke-link"].endswith(f"]({page})")
    assert (served.home / page.removeprefix(f"file://{served.home}/")).exists()

    assert served.end(served.submit("prompts/mini", **wanted)).state.is_completed()
    assert len(events()) == len(nodes)


def test_bad_input_is_in_the_runs_state_and_its_logs_last_line(served: Orchestra, tmp_path: Path) -> None:
    ended = served.end(served.submit("train/mini", config=SMOKE.model_dump(mode="json"), workspace=str(tmp_path)))
    assert ended.state.is_failed()
    assert "InputError: latents/image: not made yet" in ended.state.message

    def last() -> str | None:
        with get_client(sync_client=True) as client:
            of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[ended.id]))
            lines = [line.message for line in client.read_logs(of_run)]
        return next((line for line in lines if line.startswith("bad input: latents/image: not made yet")), None)

    assert wait_for("the line", last, 60).count("\n") == 0
