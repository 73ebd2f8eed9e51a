"""Trackers get the curves, offline, and change nothing; one that is not there is an error before any work."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from dmp_core.config import load_config
from dmp_core.errors import MissingExtra, check_installed
from dmp_core.methods.drit.settings import DritConfig
from dmp_core.methods.spade.algorithm import fit_spade
from dmp_core.methods.spade.settings import SpadeConfig
from dmp_core.stages import plan
from dmp_core.stages.preflight import check_needs
from dmp_core.training.logs import FILE, read_log
from dmp_core.training.loop import fit, identity_of, make_accelerator
from dmp_core.training.settings import FitConfig
from tests.methods.shapes import shapes
from tests.packages import installed_package

STAND_IN = """
import json, pathlib
class Run:
    def __init__(self, settings): self.write(settings)
    def write(self, line):
        with open('points.jsonl', 'a') as file: file.write(json.dumps(line) + chr(10))
    def log(self, values, step, **_):
        if pathlib.Path('down').exists() and step > 2: raise ConnectionError('no route')
        self.write([step, values['train/loss']])
    def finish(self):
        if pathlib.Path('down').exists(): raise ConnectionError('no route')
class config:
    @staticmethod
    def update(values, **_): pass
def init(project, **settings): return Run({'project': project, **settings})
"""
"""W&B's package as far as accelerate calls it; its points go into a file."""
LINE = FitConfig(steps=6, batch_size=2, learning_rate=0.1, log_every=2, checkpoint_every=3)
SPADE = SpadeConfig(
    steps=2, batch_size=2, log_every=2, channels=2, upsamplings=1, hidden_channels=2, discriminator_channels=2,
    discriminator_layers=2, discriminator_scales=1,
)  # fmt: skip
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


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """The stand-in's lines, as a function."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with installed_package(tmp_path / "site", "wandb", STAND_IN, ""):
        yield lambda: [*map(json.loads, (tmp_path / "points.jsonl").read_text().splitlines())]
    sys.modules.pop("wandb", None)


def test_a_training_continues_its_run_and_a_new_one_has_its_own(tmp_path, wandb):
    _, means = trained(tmp_path, "wandb")
    start, *points = wandb()
    assert start["project"] == "dmp"
    assert start["name"] == "normal-dmp-0123456789ab"
    assert points == [[step, mean] for step, mean in zip(MEANS, means, strict=True)]
    trained(tmp_path, "wandb")  # complete: resumes after its last step
    shutil.rmtree(tmp_path / "normal-dmp-0123456789ab")
    trained(tmp_path, "wandb")  # as with --force
    ids = [line["id"] for line in wandb() if isinstance(line, dict)]
    assert ids[0] == ids[1] != ids[2]


def test_a_tracker_that_fails_later_costs_its_points_and_no_training(tmp_path, wandb, caplog):
    (tmp_path / "down").touch()
    weight, means = trained(tmp_path, "wandb")
    assert torch.equal(weight, trained(tmp_path / "plain")[0])
    assert len(means) == 3
    assert wandb()[1:] == [[2, means[0]]]
    assert [record.getMessage() for record in caplog.records if "train.trackers" in record.getMessage()] == [
        "train.trackers: wandb failed (no route) and gets no more points; loss.csv and TensorBoard have them all"
    ]


def test_adversarial_fits_are_tracked_and_write_the_same(tmp_path, wandb):
    models = []
    for name, trackers in (("plain", []), ("tracked", ["wandb"])):
        work = tmp_path / f"albedo-spade-{name}" / ".work"
        fit_spade(shapes(4), SPADE.model_copy(update={"trackers": trackers}), work)
        models.append({file.name: file.read_bytes() for file in (work / "model").iterdir()})
    assert models[0] == models[1]
    losses = [record.loss for record in read_log(work / FILE)]
    assert wandb()[1:] == [[2, sum(losses) / 2]]


@pytest.mark.parametrize("config", [FitConfig(), SPADE, DritConfig()])
def test_what_is_recorded_does_not_name_trackers(config):
    tracked = config.model_copy(update={"trackers": ["wandb"]})
    assert tracked.recorded() == config.recorded() == config.model_dump(mode="json")
    assert tracked.model_dump(context={"fingerprint": True}) == config.model_dump(context={"fingerprint": True})
    assert tracked.model_dump()["trackers"] == ["wandb"]


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    if find_spec("trackio"):
        pytest.skip("it is installed")
    (tmp_path / "trackio").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match="trackio is not installed"):
        check_installed(["trackio"])


@pytest.mark.parametrize(
    "train",
    ["{method: sdedit, fit: {trackers: [NAME]}}", "{method: visii, fit: {trackers: [NAME]}}",
     "{method: spade, trackers: [NAME]}", "{method: drit, trackers: [NAME]}"],
)  # fmt: skip
def test_every_method_is_checked_before_any_work(train):
    name = next((name for name in ("trackio", "mlflow", "wandb") if not find_spec(name)), None)
    if name is None:
        pytest.skip("all are installed")
    config = load_config("smoke", None, ["adapters={}", "train=" + train.replace("NAME", name)])
    with pytest.raises(MissingExtra, match=f"{name} is not installed"):
        check_needs(plan(config), config.runtime)


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
    id_of_run = (tmp_path / "normal-dmp-0123456789ab" / ".work" / "tracker_id").read_text()
    assert run.name == f"run-{id_of_run}.wandb"
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
