"""Pools of containers: `prefect.yaml` on them, checked against Prefect's own templates."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prefect.server.api.collections_data as collections_data
import pytest
import yaml
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound
from prefect.utilities.templating import apply_values

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.stages import plan
from flows import call, deploy, pools

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text())


def templates() -> dict[str, Any]:
    listed = Path(next(iter(collections_data.__path__))) / "views" / "aggregate-worker-metadata.json"
    workers = [worker for collection in json.loads(listed.read_text()).values() for worker in collection.values()]
    return {worker["type"]: worker["default_base_job_configuration"] for worker in workers}


@pytest.fixture
def known(monkeypatch):
    """The server's templates, without a server."""
    found = templates()

    async def look(kind: str) -> Any:
        return found.get(kind)

    monkeypatch.setattr(pools, "get_default_base_job_template_for_infrastructure_type", look)
    return found


def job(template: dict[str, Any], deployment: dict[str, Any]) -> dict[str, Any]:
    """The job configuration of a deployment's run, as a worker computes it."""
    properties = template["variables"]["properties"]
    given = deployment["work_pool"]["job_variables"]
    assert given.keys() <= properties.keys()
    defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
    return apply_values(template["job_configuration"], {**defaults, **given})


@pytest.mark.parametrize("deployment", FILE["deployments"], ids=lambda entry: f"{entry['entrypoint']}-{entry['name']}")
def test_every_deployment_starts_in_the_image_with_its_own_environment(known, deployment):
    docker = pools.job_template("docker", "cpu", {"image": "dmp-pipeline:1", "volumes": ["/data:/data"]})
    started = job(docker, deployment)
    assert (started["image"], started["volumes"]) == ("dmp-pipeline:1", ["/data:/data"])
    assert started["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"

    name = deployment["work_pool"]["name"]
    pod = job(pools.job_template("kubernetes", name, {"image": "dmp-pipeline:1"}), deployment)["job_manifest"]
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "dmp-pipeline:1"
    assert container["env"]["DO_NOT_TRACK"] == "1"
    assert container["resources"]["limits"] == ({"nvidia.com/gpu": 1} if name == "gpu" else {})


def test_unsupported_settings_of_a_pool_are_reported(known):
    with pytest.raises(InputError, match="name an image with this package in it: --image"):
        pools.job_template("docker", "cpu", {})
    with pytest.raises(InputError, match=r"volumes: a pool of type kubernetes has no such variable; it has: .*image"):
        pools.job_template("kubernetes", "cpu", {"image": "dmp-pipeline:1", "volumes": ["/data:/data"]})
    with pytest.raises(InputError, match="--pool-type lorry: unknown; choose process"):
        pools.job_template("lorry", "cpu", {})
    assert pools.job_template("process", "gpu", {}) == known["process"]


def test_a_claim_is_mounted_where_the_image_looks_for_models(known):
    server = Server()
    server.pools.clear()
    pools.make_pool(server, "gpu", "kubernetes", variables={"image": "dmp-pipeline:1"})
    assert pools.lacks_models(server.pools["gpu"].base_job_template)
    for claim in ("models", "models-2"):  # the second one replaces the first
        pools.make_pool(server, "gpu", models_volume=claim)
        template = server.pools["gpu"].base_job_template
        entry = next(entry for entry in FILE["deployments"] if entry["work_pool"]["name"] == "gpu")
        pod = job(template, entry)["job_manifest"]["spec"]["template"]["spec"]
        assert pod["volumes"] == [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}]
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"name": "models", "mountPath": "/home/dmp/.cache/dmp/models"}]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert not pools.lacks_models(template)
    for name in ("Dockerfile", "Dockerfile.gpu"):
        made = re.findall(r"mkdir -p (.+)$", (ROOT / "docker" / name).read_text(), re.MULTILINE)
        assert str(Path(pools.MODELS_IN_IMAGE).parent) in made[-1].split(), "or the volume's parent belongs to root"
    with pytest.raises(InputError, match="--models-volume: for kubernetes; pools of docker take --volume"):
        pools.with_models(known["docker"], "docker", "models")
    with pytest.raises(InputError, match=r"--models-volume Models: not a name of a claim"):
        pools.with_models(known["kubernetes"], "kubernetes", "Models")


def test_a_plan_that_needs_models_is_refused_where_pods_have_none(known, monkeypatch):
    config = load_config("paper", None, ["runtime.deployments={train: train/gpu}"])
    nodes = plan(config)

    def check(template: dict[str, Any], kind: str = "kubernetes") -> None:
        pool = WorkPool(name="gpu", type=kind, base_job_template=template)
        client = SimpleNamespace(
            read_deployment_by_name=lambda name: SimpleNamespace(work_pool_name="gpu"), read_work_pool=lambda name: pool
        )
        monkeypatch.setattr(call, "get_client", lambda sync_client: nullcontext(client))
        call.check_deployments(config, nodes)

    pods = pools.job_template("kubernetes", "gpu", {"image": "dmp-pipeline:1"})
    with pytest.raises(
        InputError, match=r"^runtime\.deployments\.train: pods of the pool 'gpu' .*--models-volume CLAIM"
    ):
        check(pods)
    check(pools.with_models(pods, "kubernetes", "models"))
    check(pools.with_defaults(pods, "kubernetes", {"env": {"DMP_MODELS_DIR": "/models"}}))
    check(known["docker"], "docker")
    nodes = [node for node in nodes if not node.models]
    check(pods)


def test_runs_in_containers_start_where_the_image_has_the_checkout(monkeypatch):
    (step,) = FILE["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "{{ dmp.root }}"}}
    for name in ("Dockerfile", "Dockerfile.gpu"):
        folders = re.findall(r"^WORKDIR (.+)$", (ROOT / "docker" / name).read_text(), re.MULTILINE)
        assert folders[-1] == deploy.FOLDER_IN_IMAGE
    monkeypatch.chdir(ROOT)
    assert deploy.presets()["root"] == str(ROOT)
    monkeypatch.setenv("DMP_DEPLOYED_ROOT", deploy.FOLDER_IN_IMAGE)
    assert deploy.presets()["root"] == deploy.FOLDER_IN_IMAGE


class Server:
    """The part of Prefect's client that pools need, with one pool that was changed by hand."""

    def __init__(self) -> None:
        template = pools.with_defaults(templates()["docker"], "docker", {"image": "dmp-pipeline:1"})
        self.pools = {"gpu": WorkPool(name="gpu", type="docker", base_job_template=template, concurrency_limit=4)}
        self.queues: dict[tuple[str, str], int] = {}

    def read_work_pool(self, name: str) -> WorkPool:
        if name not in self.pools:
            raise ObjectNotFound(http_exc=Exception("404"))
        return self.pools[name]

    def create_work_pool(self, pool: Any) -> None:
        self.pools[pool.name] = WorkPool(**pool.model_dump(exclude_unset=True))

    def update_work_pool(self, name: str, change: Any) -> None:
        self.pools[name] = self.pools[name].model_copy(update=change.model_dump(exclude_unset=True))

    def read_work_queue_by_name(self, name: str, work_pool_name: str) -> Any:
        raise ObjectNotFound(http_exc=Exception("404"))

    def create_work_queue(self, name: str, work_pool_name: str, priority: int) -> None:
        self.queues[work_pool_name, name] = priority


def test_settings_that_are_not_given_stay_unchanged(known):
    server = Server()
    before = server.pools["gpu"]
    assert pools.make_pool(server, "gpu", limit=None, first_limit=1, variables={"image": None}) == "docker"
    assert server.pools["gpu"] == before
    pools.make_pool(server, "gpu", "docker", limit=2, first_limit=1, variables={"volumes": ["/data:/data"]})
    changed = server.pools["gpu"]
    assert changed.concurrency_limit == 2
    fields = changed.base_job_template["variables"]["properties"]
    assert (fields["image"]["default"], fields["volumes"]["default"]) == ("dmp-pipeline:1", ["/data:/data"])
    with pytest.raises(InputError, match="the pool 'gpu' exists with type docker; delete it first"):
        pools.make_pool(server, "gpu", "process")
    assert server.pools["gpu"] == changed


def test_a_new_pool_runs_processes_and_has_the_first_limit_and_all_queues(known):
    server = Server()
    server.pools.clear()
    assert pools.make_pool(server, "cpu") == pools.make_pool(server, "gpu", first_limit=1) == "process"
    assert [(pool.name, pool.concurrency_limit) for pool in server.pools.values()] == [("cpu", None), ("gpu", 1)]
    assert server.queues == {
        (pool, queue): priority for pool in ("cpu", "gpu") for queue, priority in pools.QUEUES.items()
    }
