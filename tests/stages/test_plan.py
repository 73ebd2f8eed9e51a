"""What a change of configuration makes stale, and what it leaves alone."""

from __future__ import annotations

import pytest

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.stages import plan

BASE = ["base.model=some/model", "adapters={}"]  # a hub id: planning needs no files of it


def nodes(*overrides: str) -> dict[str, str]:
    return {node.id: node.fingerprint for node in plan(load_config("mini", None, [*BASE, *overrides]))}


def stale(*overrides: str) -> set[str]:
    before, after = nodes(), nodes(*overrides)
    return {node for node in after if before.get(node) != after[node]}


def stages(ids: set[str]) -> set[str]:
    return {node.split("/")[0] for node in ids}


def test_every_node_comes_after_its_inputs():
    seen: set[str] = set()
    for node in plan(load_config("mini", None, BASE)):
        assert {source.id for source in node.inputs.values()} <= seen
        seen.add(node.id)
    assert "report/bedrooms" in seen


def test_learning_rate_redoes_train_to_report_only():
    changed = stale("train.learning_rate=0.01")
    assert stages(changed) == {"train", "predict", "evaluate", "report"}
    assert not any("ceiling" in node for node in changed)


def test_labeler_change_redoes_one_column_and_what_stands_on_it():
    changed = stale("labels.depth={kind: zoedepth, weights: x}", "images={kind: render, resolution: 64}")
    assert {node for node in changed if node.startswith(("labels", "latents", "train"))} == {
        *(f"labels/{split}-depth" for split in ("train", "in_domain", "out_of_domain", "arbitrary")),
        "latents/depth",
        "train/depth-dmp",
    }


def test_growing_the_training_set_leaves_the_test_sets():
    changed = stale("splits.train.count=200")
    assert not any("in_domain" in n or "out_of" in n for n in changed if n.startswith(("prompts", "images", "labels")))


def test_runtime_changes_nothing():
    assert stale("runtime.workers=1", "runtime.device=cuda") == set()


def test_train_prompts_exclude_the_test_prompts_of_shared_keywords():
    by_id = {node.id: node for node in plan(load_config("mini", None, BASE))}
    # "bedroom" is also one of the 409 indoor scene names.
    assert set(by_id["prompts/train"].inputs) == {"exclude_in_domain", "exclude_out_of_domain"}
    assert by_id["prompts/in_domain"].inputs == {}


def test_finished_adapters_are_installed_without_latents(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    by_id = {node.id: node for node in plan(load_config("mini", None, [*BASE, f"adapters.depth={tmp_path}"]))}
    assert by_id["train/depth-dmp"].inputs == {}
    assert "latents/depth" not in by_id
    assert "latents/normal" in by_id


def test_unknown_keyword_file_and_model_fail_before_work():
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        plan(load_config("mini", None, [*BASE, "splits.out_of_domain.keywords_file=nowhere.txt"]))
    with pytest.raises(InputError, match="no such folder"):
        plan(load_config("mini", None, ["base.model=./nowhere", "adapters={}"]))
    with pytest.raises(InputError, match="no such model ships"):
        plan(load_config("mini", None, [*BASE, "adapters.depth=shipped:nothing"]))
