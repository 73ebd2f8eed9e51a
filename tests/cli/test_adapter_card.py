"""The card of an adapter that a run trained."""

from __future__ import annotations

import json
from pathlib import Path

from dmp_core.requests.scores import adapter_scores
from dmp_core.stages.train import announce
from dmp_core.stages.verify import verify_workspace
from dmp_core.store import Artefact, Workspace


def adapter_of(workspace: Path) -> Artefact:
    folder = next((workspace / "adapters").iterdir())
    name, _, fingerprint = folder.name.rpartition("-")
    return Artefact(Workspace(workspace), "train", name, fingerprint, str(folder))


def test_training_writes_a_card_that_no_manifest_needs(smoke: Path) -> None:
    adapter = adapter_of(smoke)
    card = Path(adapter.file("README.md"))
    assert "PeftModel.from_pretrained" in card.read_text()
    assert "README.md" not in [record.name for record in adapter.published().files]
    assert list(verify_workspace(Workspace(smoke))) == []
    away = card.rename(card.with_name(".card"))
    assert adapter.status() == "complete"  # as adapters of earlier versions are
    announce(adapter)
    assert card.read_bytes() == away.read_bytes()
    away.unlink()


def test_scores_are_those_of_the_evaluation(smoke: Path) -> None:
    metrics = json.loads(next((smoke / "evaluations").glob("*/metrics.json")).read_text())["depth"]
    found = {score.split: score.value for score in adapter_scores(adapter_of(smoke))}
    assert found == {split: metrics[split]["DMP"]["metrics"]["abs_rel"]["mean"] for split in metrics}
    assert set(found) == {"in_domain", "out_of_domain"}
