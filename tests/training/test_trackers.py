"""Trackers get the curves, offline, and change nothing; one that is not there is an error before any work."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from dmp_core.config import load_config
from dmp_core.errors import MissingExtra
from dmp_core.stages import plan
from dmp_core.stages.preflight import check_needs
from dmp_core.training.logs import FILE, read_log
from dmp_core.training.loop import fit, identity_of, make_accelerator
from dmp_core.training.settings import FitConfig

LINE = FitConfig(steps=6, batch_size=2, learning_rate=0.1, log_every=2, checkpoint_every=3)
MEANS = [2, 4, 6]
"""Steps that are reported."""


def trained(folder, *trackers):
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    config = LINE.model_copy(update={"trackers": list(trackers)})
    work = folder / "normal-dmp-0123456789ab" / ".work"
    fit(
        config, network, dict(network.named_parameters()), lambda net, step: net(torch.ones(2, 1)).square().mean(),
        work, "a" * 64, make_accelerator(config, "cpu"),
    )  # fmt: skip
    losses = [record.loss for record in read_log(work / FILE)]
    return network.weight.detach().clone(), [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]


@pytest.mark.parametrize("name", ["mlflow", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(name):
    if find_spec(name):
        pytest.skip("it is installed")
    config = load_config("smoke", None, [f"train.trackers=[{name}]", "adapters={}"])
    message = f"{name} is not installed; run: pip install 'dmp-pipeline\\[{name}\\]'"
    with pytest.raises(MissingExtra, match=message):
        check_needs(plan(config), config.runtime)
    with pytest.raises(MissingExtra, match=message):
        make_accelerator(FitConfig(trackers=[name]), "cpu")


def test_trackers_change_neither_fingerprints_nor_what_a_checkpoint_belongs_to():
    plain, tracked = (
        {node.id: node.fingerprint for node in plan(load_config("smoke", None, ["adapters={}", *more]))}
        for more in ([], ["train.trackers=[wandb]"])
    )
    assert [name for name in plain if plain[name] != tracked[name]] == ["report/smoke"]  # it shows all settings
    cards = [{"training": LINE.model_copy(update={"trackers": names}).model_dump()} for names in ([], ["wandb"])]
    assert identity_of(cards[0]) == identity_of(cards[1])


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="an extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    weight, means = trained(tmp_path, "wandb")
    assert torch.equal(weight, trained(tmp_path / "plain")[0])
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert run.name == f"run-{'a' * 16}.wandb"
    content = run.read_bytes()
    assert b"train/loss" in content
    assert all(json.dumps(mean).encode()[:8] in content for mean in means)


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="an extra")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    weight, means = trained(tmp_path, "mlflow")
    assert torch.equal(weight, trained(tmp_path / "plain")[0])
    (run,) = mlflow.search_runs(experiment_names=["dmp"], output_format="list")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [*zip(MEANS, means, strict=True)]
    assert run.info.run_name == "normal-dmp-0123456789ab"
    assert run.data.params["learning_rate"] == "0.1"


def test_trackio_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="an extra")
    weight, _ = trained(tmp_path, "trackio")
    assert torch.equal(weight, trained(tmp_path / "plain")[0])
    assert [*(tmp_path / "trackio").glob("dmp*")]
