"""Gates: which samples pass, and why the others are dropped."""

from __future__ import annotations

import pandas as pd
import pytest

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN
from dmp_core.quality import gates_for, kept
from dmp_core.quality.settings import QualityConfig

IMAGES = pd.DataFrame(
    {
        "key": list("abcde"),
        "std": [0.0, 5.0, 1.0, 30.0, 30.0],
        "clipped": [1.0, 0.0, 0.2, 0.95, 0.0],
        "hash_distance": pd.Series([None, 2, 3, 64, None], dtype="Int64"),
        "flagged": pd.Series([None, False, False, None, True], dtype="boolean"),
    }
)
NORMALS = pd.DataFrame({"key": list("abcde"), "normal_z": [-1.0, 0.5, None, -0.1, 0.0]})
OFF = {name: None for name in QualityConfig.model_fields} | {"drop_flagged": False}


def test_bounds_are_inclusive_and_missing_scores_pass() -> None:
    keys, reasons = kept({"image": IMAGES}, {"image": {"min_std": 1.0, "min_hash_distance": 3}})
    assert keys == ["c", "d", "e"]
    assert reasons == {"a": "min_std", "b": "min_hash_distance"}
    assert kept({"image": IMAGES}, {"image": {"max_clipped": 0.95}})[1] == {"a": "max_clipped"}
    assert kept({"image": IMAGES}, {"image": {"drop_flagged": True}})[1] == {"e": "drop_flagged"}
    assert kept({"image": IMAGES}, {"image": {"min_clip_score": 0.2}}) == (list("abcde"), {})


def test_the_first_gate_that_fails_is_the_reason_and_labels_name_their_task() -> None:
    gates = {"image": {"min_std": 1.0}, "normal": {"min_normal_z": 0.0}}
    keys, reasons = kept({"image": IMAGES, "normal": NORMALS}, gates)
    assert keys == ["b", "c", "e"]
    assert reasons == {"a": "min_std", "d": "normal.min_normal_z"}


def test_no_gates_keep_everything() -> None:
    assert kept({"image": IMAGES}, {}) == (list("abcde"), {})
    assert kept({}, {}) == ([], {})


def test_only_gates_that_are_set_and_concern_the_tasks_are_applied() -> None:
    assert gates_for(QualityConfig(**OFF), BUILT_IN) == {}
    quality = QualityConfig(**OFF | {"min_normal_z": 0.0, "min_labelled": 0.5, "max_clipped": 0.0})
    assert gates_for(quality, ["depth"]) == {"image": {"max_clipped": 0.0}, "depth": {"min_labelled": 0.5}}
    assert gates_for(quality, ["normal"])["normal"] == {"min_labelled": 0.5, "min_normal_z": 0.0}


def test_every_setting_is_a_gate_of_some_table() -> None:
    values = {name: 0.5 for name in QualityConfig.model_fields} | {"clip_model": "x", "drop_flagged": True}
    values |= dict.fromkeys(("min_hash_distance", "min_test_distance", "min_classes"), 1)
    values |= {"rejects": ["train-00000000"], "rejects_file": None}  # the file's keys become `rejects`
    gates = gates_for(QualityConfig(**values), BUILT_IN)
    assert {gate for bounds in gates.values() for gate in bounds} == set(QualityConfig.model_fields) - {
        "clip_model",
        "rejects_file",
    }


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("quality.min_clip_score=0.2", "min_clip_score: needs clip_model"),
        ("quality.max_flip_degrees=20", "quality.max_flip_degrees: needs labels.normal.check_flip"),
        ("quality.max_clipped=1.5", "quality.max_clipped"),
        ("quality.min_contrast=1", "quality.min_contrast: unknown setting"),
    ],
)
def test_gates_without_a_score_are_refused(override: str, named: str) -> None:
    with pytest.raises(InputError) as error:
        load_config("mini", None, [override])
    assert named in str(error.value)
