"""Artefacts of an experiment: variants share those that do not differ."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.config import load_config, preset_names
from dmp_core.config.presets import dump
from dmp_core.errors import InputError
from dmp_core.experiments.planning import choose, distinct_nodes, plan_experiment
from dmp_core.experiments.settings import Experiment, experiment_names, load_experiment
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.overrides import merge
from dmp_core.resources import manifest_path
from dmp_core.stages import plan
from dmp_core.stages.estimate import estimate_seconds
from dmp_core.store import Workspace

EDITORS = ("instruct-pix2pix", "clip-vit-large-patch14")


def fingerprints(variant, *stages: str) -> dict[str, str]:
    return {node.id: node.fingerprint for node in variant.nodes if node.stage in stages}


def test_variants_share_prompts_images_labels_and_latents():
    planned = plan_experiment(load_experiment("compare"), "smoke")
    data = ("prompts", "images", "labels", "latents", "quality")
    shared = fingerprints(choose(planned, ["dmp"])[0], *data)
    assert len(shared) > 20
    for variant in planned:
        own = fingerprints(variant, *data)
        assert own.items() <= shared.items()
        without_latents = variant.name in ("spade", "drit", "ip2p_hard")
        without_scores = variant.name == "ip2p_hard" and 0
        assert len(own) == len(shared) - 6 * without_latents - without_scores
    trained = {variant.name: set(fingerprints(variant, "train").values()) for variant in planned}
    assert trained.pop("ddib") == trained["sdedit"]  # one fit for both
    assert len(set.union(*trained.values())) == 5 * len(trained)
    once = [node for _, node in distinct_nodes(planned)]
    assert len(once) < sum(len(variant.nodes) for variant in planned)


def test_nothing_is_planned_that_no_table_or_figure_needs():
    planned = plan_experiment(load_experiment("compare"), "smoke", modalities=["depth"])
    stages = {node.stage for variant in planned for node in variant.nodes}
    assert not {"report", "shards"} & stages
    learnt = {node.id for variant in planned for node in variant.nodes if node.stage == "train"}
    methods = ("spade", "drit", "sdedit", "ip2p_hard", "ip2p_learned", "visii", "dmp")
    assert learnt == {f"train/depth-{method}" for method in methods}


def test_steps_of_sampling_share_one_training():
    planned = plan_experiment(load_experiment("ablate"), "smoke")
    of = {variant.name: fingerprints(variant, "train") for variant in planned}
    assert of["steps-2"] == of["steps-20"] == of["trailing"] == of["trailing-1"] == of["estimated"] == of["paper"]
    predictions = {variant.name: fingerprints(variant, "predict") for variant in planned}
    assert predictions["trailing"] != predictions["paper"]
    assert (
        len({found["train/normal-dmp"] for found in (of["paper"], of["random"], of["all-weights"], of["rank-4"])}) == 4
    )


def test_optional_variants_wait_for_their_base_model(tmp_path):
    experiment = load_experiment("ablate")
    base = tmp_path / "prior"
    variant = experiment.variants["all-weights"].model_copy(update={"set": {"base": {"model": str(base)}}})
    for optional, known in ((True, True), (True, False), (False, False)):
        own = {"paper": experiment.variants["paper"], "own": variant.model_copy(update={"optional": optional})}
        changed = experiment.model_copy(update={"variants": own})
        if known:
            base.symlink_to(manifest_path("priors", "mini"))
        else:
            base.unlink(missing_ok=True)
        if not optional:
            with pytest.raises(InputError, match=r"base\.model"):
                plan_experiment(changed, "smoke")
        else:
            assert [v.name for v in plan_experiment(changed, "smoke")] == ["paper", "own"][: 1 + known]


def test_variants_of_another_base_model_are_left_out():
    experiment = load_experiment("ablate")
    plotted = {name for name, variant in experiment.variants.items() if "pretraining" in variant.feeds}
    assert {"prior-0", "prior-11440"} <= {v.name for v in plan_experiment(experiment, "mini-full")}
    assert not plotted & {v.name for v in plan_experiment(experiment, "paper")}


def test_a_complete_file_is_where_every_variant_starts_and_makes_none_of_them_another(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(dump(load_config("smoke", overrides=["seed=7", "train.learning_rate=0.5"])))
    planned = {v.name: v.config for v in plan_experiment(load_experiment("compare"), "smoke", file)}
    assert {name: config.train.method for name, config in planned.items()} == {
        name: variant.set.get("train", {}).get("method", "dmp")
        for name, variant in load_experiment("compare").variants.items()
        if not variant.presets
    }
    assert {config.seed for config in planned.values()} == {7}
    assert planned["dmp"].train.learning_rate == 0.5


def test_a_file_may_extend_a_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: smoke\nseed: 7\n")
    assert {v.config.seed for v in plan_experiment(load_experiment("ablate"), "mini", file)} == {7}


def test_predictions_of_many_passes_take_longer(tmp_path):
    place = Workspace(str(tmp_path))
    seconds = {}
    for variant in plan_experiment(load_experiment("compare"), "paper", modalities=["normal"]):
        node = variant.prediction("in_domain", "normal")
        seconds[variant.name] = estimate_seconds(node, place)[0] / node.samples
    # Passes: 5; 50 steps, half of them taken; 50 each way; 100 steps, each with three calls.
    assert seconds["spade"] < seconds["dmp"] < seconds["sdedit"] < seconds["ddib"] < seconds["ip2p_hard"]
    assert seconds["ip2p_hard"] - seconds["ddib"] == pytest.approx(
        (300 - 100) * (seconds["ddib"] - seconds["sdedit"]) / 75
    )


def test_sizes_beyond_the_presets_training_set_are_left_out():
    names = {variant.name for variant in plan_experiment(load_experiment("ablate"), "mini")}
    assert "samples-50" in names
    assert not {"samples-100", "samples-1000"} & names


def test_the_paper_preset_is_valid_for_every_variant():
    for name in experiment_names():
        for variant in plan_experiment(load_experiment(name), "paper"):
            assert variant.config.base.model == "CompVis/stable-diffusion-v1-4"
    rates = {
        v.name: v.config.train.learning_rate
        for v in plan_experiment(load_experiment("compare"), "paper")
        if isinstance(v.config.train, TrainConfig)
    }
    assert rates["dmp"] == 1e-4
    assert rates["dmp-full"] == 1e-5


@pytest.mark.parametrize("preset", ["paper", "paper-practical"])
def test_both_samplers_of_the_paper_are_rows_and_share_what_dmp_run_made(preset):
    """The authors' README names both as the paper's."""
    planned = {v.name: v for v in plan_experiment(load_experiment("compare"), preset, modalities=["depth"])}
    oracle, estimated = planned["dmp"], planned["dmp-estimated"]
    assert (oracle.config.sampling.source, estimated.config.sampling.source) == ("oracle", "estimated")
    assert fingerprints(oracle, "train") == fingerprints(estimated, "train")
    assert {"table1", "table2", "table3"} <= {*oracle.variant.feeds} & {*estimated.variant.feeds}
    run = {node.id: node for node in plan(load_config(preset))}
    for split in ("in_domain", "out_of_domain"):
        mine = estimated.prediction(split, "depth")
        other = run[f"predict/{split}-depth-dmp-estimated"]
        assert (mine.name, mine.fingerprint) == (other.name, other.fingerprint)  # one artefact
        assert other.fingerprint != run[f"predict/{split}-depth-dmp"].fingerprint
        assert other in run["evaluate/depth"].inputs.values()
    assert fingerprints(oracle, "evaluate") == {i: run[i].fingerprint for i in fingerprints(oracle, "evaluate")}


@pytest.mark.parametrize("preset", ["mini-full", "best"])
def test_the_second_sampler_is_a_row_of_the_papers_presets_only(preset):
    assert "dmp-estimated" not in {v.name for v in plan_experiment(load_experiment("compare"), preset)}
    assert not [node.id for node in plan(load_config(preset)) if node.id.endswith("-dmp-estimated")]


def test_the_papers_ablations_are_made_with_captions():
    planned = {v.name: v.config for v in plan_experiment(load_experiment("ablate"), "paper")}
    captions = {name: (config.train.use_prompt, config.sampling.use_prompt) for name, config in planned.items()}
    assert captions.pop("no-prompts") == (False, False)
    assert planned["no-prompts"].sampling.guidance_scale == 1
    assert set(captions.values()) == {(True, True)}
    assert "prompts" not in planned  # the reference itself
    mini = {v.name: v.config for v in plan_experiment(load_experiment("ablate"), "mini-full")}
    assert [name for name, config in mini.items() if config.train.use_prompt] == ["prompts"]


def test_mini_full_has_the_sizes_of_the_issue():
    assert "mini-full" in preset_names()
    config = load_config("mini-full")
    assert [config.splits[s].count for s in ("train", "in_domain", "out_of_domain", "arbitrary")] == [
        2000,
        500,
        500,
        200,
    ]
    assert config.adapters == {}
    assert len(config.modalities) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--variants", "gan2", "--dry-run"], "no such variant: gan2; choose from: spade, "),
        (["compare", "-p", "nothing"], "choose one of"),
        (["compare", "--modalities", "mood"], "--modalities mood: unknown"),
        (["ablate", "-p", "smoke", "--set", "train.stepz=3"], "train.stepz: unknown setting"),
        (
            ["run", "-p", "smoke", "--set", "train.method=gan2"],
            "train: method 'gan2' is unknown; choose one of: spade, drit, sdedit, ddib, ip2p_hard",
        ),
        (["run", "-p", "smoke", "--set", "train.samples=5"], "splits.train.count is 4"),
        (["run", "-p", "smoke", "--set", "train.init=random"], "set weights: all"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception).strip() or "ablate" in arguments


def test_a_plan_for_the_methods_lists_the_weights_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "none"))
    arguments = ["plan", "-p", "paper", "--variants", "all", "-w", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for needed in ("Random weights", "VISII", "omnidata", "stable-diffusion", "dmp models pull", *EDITORS):
        assert needed in result.output


def test_choices_keep_the_experiments_order():
    planned = plan_experiment(load_experiment("compare"), "smoke")
    assert [v.name for v in choose(planned, ["dmp-random", "dmp"])] == ["dmp", "dmp-random"]
    assert choose(planned, ["all"]) == planned == choose(planned, [])


def test_another_methods_settings_replace_and_its_own_override():
    old = {"train": {"lora": {"rank": 4}, "steps": 5}}
    assert merge(old, {"train": {"method": "other"}})["train"] == {"method": "other"}
    assert merge(old, {"train": {"method": "dmp", "steps": 6}})["train"] == {
        "method": "dmp", "lora": {"rank": 4}, "steps": 6,
    }  # fmt: skip


def test_an_experiment_with_unknown_names_is_rejected():
    wrong = {"title": "t", "preset": "mini", "reference": "a", "outputs": {}}
    with pytest.raises(ValueError, match="not among the variants"):
        Experiment.model_validate(wrong | {"variants": {"b": {"title": "b"}}})
    with pytest.raises(ValueError, match="feeds: no such output: figure9"):
        Experiment.model_validate(wrong | {"variants": {"a": {"title": "a", "feeds": ["figure9"]}}})


def test_an_unknown_modality_is_named_with_its_place():
    experiment = load_experiment("compare")
    name = next(iter(experiment.variants))
    wrong = experiment.variants[name].model_copy(update={"modalities": ["mood"]})
    changed = experiment.model_copy(update={"variants": {**experiment.variants, name: wrong}})
    with pytest.raises(InputError, match=rf"variants\.{name}\.modalities mood: unknown; choose from: normal, depth"):
        plan_experiment(changed, "smoke")
