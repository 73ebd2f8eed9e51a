"""Presets validate; errors name the field and the fix; precedence is preset < file < --set."""

from __future__ import annotations

import pytest
import yaml

from dmp_core.config import dump, load_config, preset_names
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.overrides import merge


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_complete_and_round_trips(preset):
    config = load_config(preset)
    again = validate(yaml.safe_load(dump(config)), "dump")
    assert again == config


def test_the_experiments_score_every_split_and_the_demo_those_of_the_paper():
    """Labels of renders are exact on arbitrary images, too; the paper could only show those."""
    assert load_config("mini-full").splits["arbitrary"].scored
    assert not load_config("mini").splits["arbitrary"].scored


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
        ("modalities=[normal, normal]", "modalities"),
        ("prompts.template=no place for it", "template must contain {keyword}"),
        ("nonsense", "write it as field.subfield=value"),
    ],
)
def test_bad_settings_name_the_field(override, named):
    with pytest.raises(InputError) as error:
        load_config("mini", None, [override])
    assert named in str(error.value)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden"])
def test_a_dataset_stays_in_its_folder(name):
    with pytest.raises(InputError, match=r"dataset: .* no slashes"):
        load_config("smoke", None, [f"dataset={name}"])


def test_exact_labels_need_rendered_images():
    with pytest.raises(InputError, match="exact labels need rendered images"):
        load_config("mini", None, ["images={kind: diffusion}"])


def test_errors_for_unknown_preset_and_file_list_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"choose one of: .*mini"):
        load_config("maxi")
    with pytest.raises(InputError, match="no such configuration file"):
        load_config("mini", tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(InputError, match=r"broken.yaml: not valid YAML"):
        load_config("mini", broken)


def test_a_split_has_one_source():
    folder = "splits.arbitrary={folder: photos, keywords_file: arbitrary.txt}"
    with pytest.raises(InputError, match="give one of keywords, keywords_file and folder"):
        load_config("mini", None, [folder])
    with pytest.raises(InputError, match="count: give the number"):
        load_config("mini", None, ["splits.new={keywords: [bedroom]}"])
    with pytest.raises(InputError, match="share: give two fractions"):
        load_config("mini", None, ["splits.new={folder: photos, share: [0.5, 0.2]}"])
    split = load_config("mini", None, ["splits.new={folder: photos}"]).splits["new"]
    assert (split.count, split.fit, split.share) == (None, "crop", (0.0, 1.0))


def test_exact_labels_may_come_from_folders():
    config = load_config("mini")
    values = config.model_dump(mode="json") | {"images": {"kind": "diffusion"}}
    assert validate(values | {"splits": {"arbitrary": {"folder": "photos"}}}, "mine").labels["normal"].kind == "exact"
    with pytest.raises(InputError, match="exact labels need rendered images"):
        validate(values, "mine")


def test_a_file_may_state_what_it_extends(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: paper\nseed: 5\n")
    assert load_config("mini", file) == load_config("paper", None, ["seed=5"])
    complete = load_config("smoke", None, ["splits.arbitrary.count=7"])
    values = complete.model_dump(mode="json")
    del values["splits"]["train"]
    file.write_text(yaml.safe_dump({"extends": None} | values))
    again = load_config("mini", file, ["seed=9"])
    assert set(again.splits) == {"in_domain", "out_of_domain", "arbitrary"}
    assert (again.preset, again.seed, again.splits["arbitrary"].count) == ("smoke", 9, 7)
