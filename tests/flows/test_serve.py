"""The deployments that one process serves are those of `prefect.yaml`."""

from __future__ import annotations

import yaml
from prefect.flows import load_flow_from_entrypoint

from dmp_core.config import load_config
from flows.serve import FILE, listed, served


def test_served_deployments_are_those_of_the_file_without_pools():
    entries = listed()
    assert [(entry["entrypoint"], entry["name"]) for entry in entries] == [
        (entry["entrypoint"], entry["name"]) for entry in yaml.safe_load(FILE.read_text())["deployments"]
    ]
    by_name = {(entry["entrypoint"], entry["name"]): entry for entry in entries}
    train = served(by_name["flows/stages.py:train", "gpu"])
    assert (train.flow_name, train.name, train.work_pool_name) == ("train", "gpu", None)
    assert train.parameters["config"] == load_config("mini").model_dump(mode="json")
    assert load_flow_from_entrypoint(train.entrypoint).name == "train"

    nightly = served(by_name["flows/pipeline.py:pipeline", "mini"])
    (schedule,) = nightly.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == ("0 2 * * *", "UTC", False)
