"""The evaluate stage: the same numbers as scoring one image at a time, each label decoded once, on torch's device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import evaluation
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.modalities.base import Modality
from dmp_core.stages.evaluate import scored
from dmp_core.store import Workspace


@pytest.mark.parametrize("name", BUILT_IN)
def test_scores_equal_those_of_one_image_at_a_time_by_the_plain_formulas(name, tmp_path):
    before, after, difference = evaluation.compare(find_modality(name), tmp_path, images=5, size=48)
    assert min(before, after) > 0
    assert difference <= 1e-6


def test_each_file_is_decoded_once(tmp_path, monkeypatch):
    modality, workspace = find_modality("normal"), Workspace(str(tmp_path))
    labels, one, other = (
        evaluation.stored(modality, workspace, row, 3, seed, 32) for seed, row in enumerate(("labels", "one", "other"))
    )
    decoded, decode = [], type(modality).decode
    monkeypatch.setattr(type(modality), "decode", lambda self, data: decoded.append(data) or decode(self, data))
    tables = scored(modality, "in_domain", {"one": one, "other": other, "blind": lambda label: label}, labels, ())
    assert len(decoded) == 9
    assert [table.row for table in tables] == ["one", "other", "blind"]
    assert tables[2].values["angular_deg"].tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_sizes_may_differ_within_a_split_and_a_prediction_of_another_size_is_refused(tmp_path):
    modality = find_modality("depth")
    here, there = (Workspace(str(tmp_path / name)) for name in ("here", "there"))
    labels, predicted = (evaluation.stored(modality, here, row, 2, seed, 32) for seed, row in enumerate(("a", "b")))
    small = evaluation.stored(modality, there, "b", 2, 1, 16)
    assert len(scored(modality, "in_domain", {"b": predicted}, labels, ())[0].values) == 2
    with pytest.raises(InputError, match=r"in_domain-00000000, whose label is \(32, 32\); run predict again"):
        scored(modality, "in_domain", {"b": small}, labels, ())


@pytest.mark.parametrize("name", ["normal", "depth", "albedo", "shading"])
def test_maps_are_moved_to_the_device_on_which_scores_are_computed(name):
    modality: Modality = find_modality(name)
    shape = (2, 8, 8, 3) if modality.channels == 3 else (2, 8, 8)
    with torch.device("meta"):
        assert modality.tensor(np.zeros(shape, np.float32)).device.type == "meta"
    assert modality.tensor(np.zeros(shape, np.float32)).dtype == torch.float64
