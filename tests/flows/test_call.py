"""What a stage on another pool comes to, what is tried again, and what is refused before work. No server needed."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled, Completed, Crashed, Failed, Running
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate as validate_parameters

from dmp_core.config import load_config, preset_names
from dmp_core.config.pipeline import validate
from dmp_core.errors import InputError
from dmp_core.stages import STAGES
from flows.call import StageFailed, _is_done
from flows.deploy import presets
from flows.pipeline import pipeline
from flows.settings import laid_over
from flows.stages import STAGE_FLOWS
from tasks import STAGE_TASKS, worth_retrying

ROOT = Path(__file__).resolve().parents[2]


def done(state: State, started_before: float = 0, seconds: float | None = None) -> bool:
    start = datetime.now(UTC) - timedelta(seconds=started_before)
    return _is_done(FlowRun(flow_id=uuid4(), state=state, start_time=start), "train/normal-dmp", seconds)


def test_every_stage_has_a_flow_and_a_task():
    assert list(STAGE_FLOWS) == list(STAGE_TASKS) == list(STAGES)


def test_a_child_run_is_done_waited_for_or_an_error():
    assert done(Completed())
    assert not done(Running())
    assert not done(Running(), started_before=50, seconds=60)
    with pytest.raises(TimeoutError, match="train/normal-dmp: stopped after 60 s"):
        done(Running(), started_before=61, seconds=60)
    with pytest.raises(CancelledRun):
        done(Cancelled())
    with pytest.raises(StageFailed, match="ended as Crashed: machine lost"):
        done(Crashed(message="machine lost"))
    with pytest.raises(InputError, match=r"^latents/image: not made yet$"):
        done(Failed(message="Flow run encountered an exception: InputError: latents/image: not made yet"))


def test_only_what_may_pass_is_tried_again():
    passing = (OSError(5, "Input/output error"), ConnectionError(), TimeoutError(), BrokenProcessPool())
    lasting = (InputError("field"), FileNotFoundError(), PermissionError(), ValueError(), MemoryError())
    assert all(map(worth_retrying, passing))
    assert not any(map(worth_retrying, lasting))


def test_overrides_are_laid_over_and_stages_checked():
    config = load_config("smoke")
    assert laid_over(config, ["train.steps=7"]).train.steps == 7
    with pytest.raises(InputError, match=r"train\.steps: input should be greater than 0"):
        laid_over(config, ["train.steps=0"])
    for field, value in (("deployments", "x/y"), ("timeouts", 5)):
        with pytest.raises(InputError, match=rf"runtime\.{field}\.cooking: no such stage"):
            laid_over(config, [f"runtime.{field}={{cooking: {value}}}"])


@pytest.mark.parametrize("preset", preset_names())
def test_presets_fit_the_schema_that_a_deployment_is_held_against(preset):
    given = {"config": load_config(preset).model_dump(mode="json")}
    schema = parameter_schema(pipeline.fn).model_dump_for_openapi()
    validate_parameters(given, schema, raise_on_error=True, ignore_required=True)  # as the server does it
    assert list(schema["properties"])[-1] == "config"  # what changes from day to day comes before it in the form


def test_presets_are_deployed_whole_and_name_deployments_that_exist():
    assert presets()["mini"] == load_config("mini").model_dump(mode="json")
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {f"{entry['entrypoint'].rpartition(':')[2]}/{entry['name']}" for entry in listed}
    for entry in listed:
        preset = entry["parameters"]["config"].removeprefix("{{ dmp.").removesuffix(" }}")
        config = laid_over(validate(presets()[preset], preset), entry["parameters"].get("overrides", []))
        assert set(config.runtime.deployments.values()) <= names
    assert "train/gpu" in names
