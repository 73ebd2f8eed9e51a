"""An experiment's flow with a variant that fails: earlier scores are shown, and the run fails with its error."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from prefect.logging import disable_run_logger

from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.methods.registry import find_method
from dmp_core.stages import find, plan
from dmp_core.store import Manifest, Workspace, record_files
from flows import experiments, visible


def score(config: PipelineConfig, node_id: str, workspace: str) -> None:
    """Publish an evaluation that holds a single number."""
    node = find(plan(config), node_id)
    out = node.artefact(Workspace(workspace))
    row = find_method(config.train.method).title
    numbers = {"metrics": {"l1": {"mean": 12.5, "low": 12.0, "high": 13.0}}, "images": 4}
    out.write_bytes("metrics.json", json.dumps({"normal": {"in_domain": {row: numbers}}}).encode())
    manifest = Manifest(
        stage=node.stage, stage_version=node.kind.version, name=node.name, fingerprint=node.fingerprint, config={},
        inputs={}, files=record_files(out), samples=4, seconds=0.0, created=datetime.now(UTC).isoformat(),
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_variant_that_fails_leaves_the_tables_of_those_before_it(kind, tmp_path, monkeypatch):
    workspace = str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    begun: list[str] = []
    shown: list[str] = []

    def run_dag(config: PipelineConfig, workspace: str, force: bool, only: list[str]) -> list[object]:
        begun.append(config.train.method)
        if len(begun) > 1:
            raise InputError("train.steps: of this variant alone")
        score(config, next(node for node in only if node.startswith("evaluate/")), workspace)
        return []

    monkeypatch.setattr(experiments, "run_dag", run_dag)
    monkeypatch.setattr(visible, "create_markdown_artifact", lambda text, *_: shown.append(text))
    flow = experiments.EXPERIMENT_FLOWS["compare"]
    with disable_run_logger(), pytest.raises(InputError, match="of this variant alone"):
        flow.fn(workspace=workspace, modalities=["normal"], variants=["dmp", "spade"], config=load_config("smoke"))

    place = Workspace(workspace)
    index = json.loads(place.fs.cat_file(f"{place.root}/experiments/compare/experiment.json"))
    assert [name for name, variant in index["variants"].items() if variant["scored"]] == begun[:1]
    assert len(begun) == 2
    assert "12.5" in shown[0]
    assert f"`{place.address(f'{place.root}/experiments/compare')}`" in shown[0]
