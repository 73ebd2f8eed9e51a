"""Presets validate; errors name the field and the mend; precedence is preset < file < --set."""

from __future__ import annotations

import pytest
import yaml

from dmp_core.config import dump, load_config, preset_names
from dmp_core.config.pipeline import merge, validate
from dmp_core.errors import InputError


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_complete_and_round_trips(preset):
    config = load_config(preset)
    again = validate(yaml.safe_load(dump(config)), "dump")
    assert again == config


def test_paper_preset_states_the_papers_protocol():
    config = load_config("paper")
    counts = {name: split.count for name, split in config.splits.items()}
    assert counts | {"styles": 0} == {
        "train": 10_000, "in_domain": 2_000, "out_of_domain": 2_000, "arbitrary": 200, "styles": 0,
    }  # fmt: skip
    train = config.train
    assert (train.steps, train.batch_size, train.learning_rate, train.lora.rank) == (50_000, 8, 1e-4, 4)
    assert (train.lora.targets, train.prediction, train.schedule.spacing) == ("attention", "v", "leading")
    assert not train.schedule.set_alpha_to_one
    assert (config.sampling.num_steps, config.sampling.source) == (5, "oracle")
    assert (config.images.num_inference_steps, config.images.guidance_scale) == (50, 7.5)


def test_precedence_preset_file_set(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {steps: 7, learning_rate: 0.5}\n")
    config = load_config("mini", file, ["train.steps=9", "splits.train.count=5"])
    assert (config.train.steps, config.train.learning_rate, config.splits["train"].count) == (9, 0.5, 5)
    assert config.train.lora == load_config("mini").train.lora


def test_another_kind_replaces_the_whole_section():
    config = load_config("mini", None, ["prompts.generator={kind: grammar}"])
    assert config.prompts.generator.kind == "grammar"


def test_empty_mapping_replaces():
    assert merge({"adapters": {"depth": "x"}}, {"adapters": {}}) == {"adapters": {}}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.stepz=9", "train.stepz: unknown setting"),
        ("train.steps=0", "train.steps: input should be greater than 0"),
        ("train.lora.targets=conv", "train.lora.targets"),
        ("images.kind=photo", "images"),
        ("splits.train.keywords=[]", "splits.train"),
        ("labels.normal.kind=magic", "labels.normal"),
        ("tasks=[normal, normal]", "tasks"),
        ("prompts.template=no place for it", "template must contain {keyword}"),
        ("nonsense", "write it as field.subfield=value"),
    ],
)
def test_bad_settings_name_the_field(override, named):
    with pytest.raises(InputError) as error:
        load_config("mini", None, [override])
    assert named in str(error.value)


def test_exact_labels_need_rendered_images():
    with pytest.raises(InputError, match="exact labels need rendered images"):
        load_config("mini", None, ["images={kind: diffusion}"])


def test_unknown_preset_and_file_name_what_there_is(tmp_path):
    with pytest.raises(InputError, match=r"choose one of: .*mini"):
        load_config("maxi")
    with pytest.raises(InputError, match="no such configuration file"):
        load_config("mini", tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(InputError, match=r"broken.yaml: not valid YAML"):
        load_config("mini", broken)
