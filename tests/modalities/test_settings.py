"""Modalities in configurations and cards: own ones, older names, codes of depth, axes of normals."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

from dmp_core.cli import _rename_old_options
from dmp_core.config import dump, load_config
from dmp_core.config.presets import validate
from dmp_core.diffusion.card import parse_card, read_card
from dmp_core.errors import InputError
from dmp_core.evaluation.colours import class_colours
from dmp_core.methods.dmp.finetune import make_card
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.modalities import Code, find_modality
from dmp_core.modalities.settings import ClassesModality, ScalarModality, VectorModality
from dmp_core.overrides import _notice
from dmp_core.training.data import ClassWeights, LabelImages

DEPTH, NORMAL = find_modality("depth"), find_modality("normal")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("own_modalities={normal: {kind: scalar}}", "normal is taken"),
        ("own_modalities={image: {kind: scalar}}", "image is taken"),
        ("own_modalities={a__b: {kind: scalar}}", "single underscores"),
        ("own_modalities={wear: {kind: cube}}", "own_modalities.wear"),
        ("own_modalities={wear: {kind: scalar, range: [1, 0]}}", "the smallest value, then the largest"),
        ("own_modalities={wear: {kind: scalar, range: [0, 1e9]}}", "within ±65504"),
        ("own_modalities={wear: {kind: classes, classes: [one]}}", "give 2 to 65534"),
        ("own_modalities={wear: {kind: classes, classes: [a, a]}}", "each once"),
        ("own_modalities={wear: {kind: classes, classes: no/such/file}}", "no/such/file"),
        ("own_modalities={wear: {kind: classes, classes: [a, b], headline: [c]}}", "headline: no class c"),
        ("own_modalities={wear: {kind: classes, classes: [a, b], weights: {c: 2}}}", "weights: no class c"),
        ("own_modalities={wear: {kind: classes, classes: [a, b], palette: [[0, 0, 1]]}}", "2 different colours"),
        ("modalities=[mood]", "modality 'mood' is unknown"),
    ],
)
def test_bad_descriptions_name_the_field_and_the_fix(override, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        load_config("smoke", None, [override])


def test_a_list_of_classes_may_be_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("# ours\nnone\nscratch\n\ndent\n")
    own = ClassesModality(classes=str(tmp_path / "classes.txt"))
    assert own == ClassesModality(classes=["none", "scratch", "dent"])


def test_the_id_of_a_class_may_be_no_label():
    modality = find_modality("wear", ClassesModality(classes=["unknown", "new", "worn"], ignore=0))
    label = np.array([[0, 1], [2, 2]], dtype=np.uint8)
    assert modality.classes_in(label) == [1, 2]
    assert modality.scores(np.array([[[1, 1], [2, 1]]]), label[None])["image_overall_acc"] == [2 / 3]
    assert tuple(modality.to_image(label[None], Code())[0, :, 0, 0].tolist()) == (-1, -1, -1)


@pytest.mark.parametrize("count", [2, 150, 188, 189, 1000, 65534])
def test_class_colours_are_distinct_and_none_is_black(count):
    colours = class_colours(count).astype(np.int64) @ [65536, 256, 1]
    assert len(set(colours.tolist())) == count
    assert 0 not in colours


def test_many_classes_survive_their_colours():
    modality = find_modality("parts", ClassesModality(classes=[str(number) for number in range(5000)]))
    label = np.random.default_rng(0).integers(0, 5000, (1, 20, 30)).astype(np.uint16)
    assert np.array_equal(modality.from_image(modality.to_image(label, Code()), Code()), label)


def test_weights_of_classes_reach_the_loss():
    modality = find_modality("wear", ClassesModality(classes=["a", "b"], weights={"b": 3}))
    label = np.array([[[0, 0, 0, 1]]], dtype=np.uint8)
    codes = ((modality.to_image(label, Code()) + 1) * 127.5).round().byte().numpy()
    found = ClassWeights(LabelImages(codes, modality), 0)(codes)
    assert found[0, 0, 0, 3] == pytest.approx(3 * found[0, 0, 0, 0])
    assert found.mean() == pytest.approx(1)


# ---------------------------------------------------------------------------------------- names
def test_older_words_are_read_with_one_notice(tmp_path, caplog):
    (tmp_path / "old.yaml").write_text("tasks: [normal]\n")
    _notice.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = [load_config("smoke", tmp_path / "old.yaml"), load_config("smoke", None, ["tasks=[normal]"])]
    assert {tuple(config.modalities) for config in found} == {("normal",)}
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "modalities" in caplog.records[0].message
    with pytest.raises(InputError, match="give one of the two"):
        validate(load_config("smoke").model_dump() | {"tasks": ["normal"]}, "mine.yaml")


def test_older_options_are_read_with_a_notice(capsys):
    assert _rename_old_options(["stage", "train", "--task", "normal"]) == ["stage", "train", "--modality", "normal"]
    assert _rename_old_options(["compare", "--tasks=normal,depth"]) == ["compare", "--modalities=normal,depth"]
    assert _rename_old_options(["plan", "--set", "train.steps=3"]) == ["plan", "--set", "train.steps=3"]
    assert capsys.readouterr().err.splitlines() == [
        "--task is read as --modality, its current name",
        "--tasks is read as --modalities, its current name",
    ]


def test_unset_options_are_not_in_the_configuration():
    shown = dump(load_config("smoke"))
    assert not any(word in shown for word in ("own_modalities", "depth_curve", "depth_clip", "axes", "tasks:"))


# ---------------------------------------------------------------------------------------- depth
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("curve", ["linear", "log", "sqrt"])
def test_depth_codes_are_inverted(curve, clip):
    code = Code(depth_scale=8.0, depth_curve=curve, depth_clip=clip)
    depth = np.array([[[0.25, 1, 2.5, 7.9, 8, 12]]], dtype=np.float32)
    image = DEPTH.to_image(depth, code)
    assert image.max() == pytest.approx(1) if clip else image.max() > 1
    expected = np.minimum(depth, 8) if clip else depth
    assert np.allclose(DEPTH.from_image(image, code), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("curve", "grey"), [("linear", 0.25), ("sqrt", 0.5), ("log", 1 - np.log(0.25) / np.log(1 / 40))]
)
def test_curves_in_closed_form(curve, grey):
    image = DEPTH.to_image(np.full((1, 2, 2), 2.0, np.float32), Code(8.0, curve))
    assert torch.allclose(image, torch.tensor(2 * grey - 1, dtype=torch.float32), atol=1e-6)


def test_the_card_states_the_code_and_refuses_another():
    sampling = {"source": "oracle", "num_steps": 1}
    card = parse_card(make_card("depth", "base", code=Code(10.0, "log", False), sampling=sampling), "dmp.json")
    assert card.code_of(DEPTH) == {"depth_scale": 10.0, "depth_curve": "log", "depth_clip": False}
    assert card.contradictions(DEPTH, Code(10.0, "log", False)) == []
    assert card.contradictions(DEPTH, Code(10.0, "log")) == ["its depth clip is False, latents.depth_clip is True"]
    older = parse_card({"task": "depth", "encoding": {"mode": "F", "scale": 8.0}}, "dmp.json")
    assert older.contradictions(DEPTH, Code(8.0, "sqrt")) == ["its depth curve is linear, latents.depth_curve is sqrt"]


def test_the_card_of_an_own_modality_describes_it():
    heat = find_modality("heat", ScalarModality(range=(-20, 80), unit="°C"))
    card = parse_card(
        json.loads(json.dumps(make_card(heat, "base", sampling={"source": "oracle", "num_steps": 1}))), "x"
    )
    assert card.modality is not None
    assert (card.modality.name, card.modality.member) == ("heat", "heat.npy")
    other = find_modality("heat", ScalarModality(range=(0, 80), unit="°C"))
    assert "own_modalities.heat.range is [0.0, 80.0]" in card.contradictions(other)[0]
    grey = torch.zeros(1, 3, 4, 4)
    code = Code(**card.code_of(card.modality))
    assert np.allclose(card.modality.from_image_at(grey, (4, 4), code), 30)
    assert card.modality.from_image_at(grey, (8, 2), code).shape == (1, 8, 2)


# ----------------------------------------------------------------------------------------- axes
def test_published_adapters_are_read_right_down_away(tmp_path):
    image = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    published = read_card(tmp_path).code_of(NORMAL)
    assert published == {"axes": "opencv"}
    assert np.allclose(NORMAL.from_image(image, Code(**published))[0, 0, 0], [0, -0.6, -0.8], atol=1e-6)
    ours = parse_card({"encoding": NORMAL.encoding(Code())}, "dmp.json").code_of(NORMAL)
    assert np.allclose(NORMAL.from_image(image, Code(**ours))[0, 0, 0], [0, 0.6, 0.8], atol=1e-6)
    with pytest.raises(InputError, match=r"encoding\.axes: 'up, up, up' is unknown"):
        parse_card({"encoding": {"axes": "up, up, up"}}, "dmp.json").code_of(NORMAL)


@pytest.mark.parametrize(
    ("axes", "ours"), [("opengl", (0.0, 0.6, 0.8)), ("directx", (0.0, -0.6, 0.8)), ("unity", (0.0, 0.6, -0.8))]
)
def test_vectors_of_files_get_our_axes(axes, ours):
    label = np.broadcast_to(np.array([0, 0.6, 0.8], np.float32), (2, 2, 3))
    assert np.allclose(NORMAL.turned(label, axes)[0, 0], ours)
    assert find_modality("bent", VectorModality()).turned(label, axes).shape == (2, 2, 3)


def test_settings_of_segmentation_alone_are_those_of_every_class_map():
    wear = find_modality("wear", ClassesModality(classes=["a", "b"]))
    config = TrainConfig(colour_error="l2")
    assert config.for_modality(wear).colour_error == "l2"
    assert config.for_modality(DEPTH).colour_error == "l1"
