from pathlib import Path

import numpy as np
import pytest

from benchmarks import rehearsal
from dmp_core.config import load_config
from dmp_core.experiments.settings import load_experiment
from dmp_core.stages import plan


@pytest.mark.parametrize(("device", "dtype", "precision"), [("cpu", "bfloat16", "bf16"), ("cuda", "float16", "fp16")])
def test_it_is_the_paper_preset_with_local_models(device, dtype, precision):
    paper, config = load_config("paper"), rehearsal.rehearsal_config(Path("models"), device, steps=2, size=512)
    assert config.modalities == paper.modalities
    assert (config.sampling.dtype, config.train.mixed_precision) == (dtype, precision)
    assert {task: labels.kind for task, labels in config.labels.items()} == {
        task: labels.kind for task, labels in paper.labels.items()
    }
    assert {node.stage for node in plan(config)} == {node.stage for node in plan(paper)}


def test_methods_are_those_of_the_comparison_with_two_steps():
    config = rehearsal.rehearsal_config(Path("models"), "cpu", steps=2, size=512)
    others = [other.train for other in rehearsal.method_configs(config, Path("models"))]
    compared = load_experiment("compare").variants.values()
    assert [train.method for train in others] == [
        variant.set["train"]["method"] for variant in compared if "method" in variant.set.get("train", {})
    ]
    assert all(train.fitted.draws <= 2 for train in others)
    visii = next(train for train in others if train.method == "visii")
    assert (visii.fit.clip_model, visii.fit.num_pairs) == ("models/clip", None)


@pytest.mark.slow
def test_every_artefact_is_measured_once_and_described(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "plan", lambda config: plan(config)[:2])
    config = load_config("smoke", overrides=["splits.in_domain.count=2", "prompts.generator={kind: grammar}"])
    rows = list(rehearsal.rehearse(config, tmp_path))
    assert [row.node.split("/")[0] for row in rows] == ["prompts", "images"]
    assert rows[0].output.startswith("prompts.parquet 2×")
    assert "png 64×64×3 8 bit" in rows[1].output or "png 32×32×3 8 bit" in rows[1].output
    assert list(rehearsal.rehearse(config, tmp_path)) == rows
    table = rehearsal.markdown([("tiny", 10**6, 2**30)], rows, rehearsal.rehearsal_config(tmp_path, "cpu", 2, 512))
    assert "| tiny | 1 M | 1.00 GiB |" in table
    assert f"| {rows[1].node} | {rows[1].output} |" in table


@pytest.mark.slow
def test_memory_is_that_of_the_process_alone():
    held = np.ones(2**27)  # 1 GiB
    assert rehearsal.peak_gib() > 1
    assert rehearsal.apart(rehearsal.peak_gib) < 0.9, "the child reports its parent's memory"
    del held
