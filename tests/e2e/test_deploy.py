"""`make deploy` for containers, and repeated: a server, and no worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deploy import FOLDER_IN_IMAGE
from tests.e2e.orchestra import ROOT, Orchestra

pytestmark = pytest.mark.e2e


@pytest.fixture
def server(tmp_path) -> Iterator[Orchestra]:
    made = Orchestra(tmp_path)
    try:
        made.start()
        with temporary_settings({PREFECT_API_URL: made.url}):
            yield made
    finally:
        made.kill("server")


def state() -> tuple[dict[str, Any], set[str]]:
    """Pools by name; the folders that deployments start in."""
    with get_client(sync_client=True) as client:
        pools = {pool.name: pool for pool in client.read_work_pools()}
        steps = [step for deployment in client.read_deployments() for step in deployment.pull_steps]
    return pools, {step["prefect.deployments.steps.set_working_directory"]["directory"] for step in steps}


def image(pool: Any) -> str:
    return pool.base_job_template["variables"]["properties"]["image"]["default"]


def test_containers_are_deployed_once_and_kept_by_later_deployments(server):
    server.command(
        "flows.deploy", "--pool-type", "docker", "--image", "dmp:1", "--volume", "/data:/data", "--gpus", "4"
    )
    pools, folders = state()
    assert {pool.type for pool in pools.values()} == {"docker"}
    assert pools["gpu"].concurrency_limit == 4
    assert folders == {FOLDER_IN_IMAGE}

    with get_client(sync_client=True) as client:
        client.update_work_pool("cpu", WorkPoolUpdate(concurrency_limit=3))  # somebody, in the interface
    server.command("flows.deploy", "--gpu-image", "dmp:2-gpu")
    pools, folders = state()
    assert (image(pools["cpu"]), image(pools["gpu"])) == ("dmp:1", "dmp:2-gpu")
    assert (pools["cpu"].concurrency_limit, pools["gpu"].concurrency_limit) == (3, 4)
    assert folders == {FOLDER_IN_IMAGE}

    with pytest.raises(AssertionError, match="the pool 'cpu' exists with type docker"):
        server.command("flows.deploy", "--pool-type", "process")
    with get_client(sync_client=True) as client:
        for name in pools:
            client.delete_work_pool(name)
    server.command("flows.deploy")
    pools, folders = state()
    assert {pool.type for pool in pools.values()} == {"process"}
    assert folders == {str(ROOT)}
