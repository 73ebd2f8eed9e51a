"""Both ways compute the same: what differs is the cost."""

from __future__ import annotations

import pytest
import torch

from benchmarks.published import STAGES, make_dataset, measured, prediction
from dmp_core.config import load_config
from dmp_core.weights.load import load_base


def test_both_ways_predict_the_same():
    base = load_base(load_config("mini").base)
    base.set_progress_bar_config(disable=True)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ways = {name: way() for name, way in prediction(base, images).items()}
    torch.testing.assert_close(ways["published"], ways["here"], atol=1e-4, rtol=0)


def test_the_table_has_a_ratio_per_row():
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in measured(pairs=1, batch=2)]
    assert [name for name, *_ in rows] == ["prediction, ms per image", "training step, ms per image"]
    assert all(abs(float(ratio) - float(old) / float(new)) < 0.1 for _, old, new, ratio in rows)


@pytest.mark.e2e
def test_a_dataset_is_made_stage_by_stage(tmp_path):
    seconds = make_dataset(1, tmp_path, one_by_one=False)
    assert list(seconds) == list(STAGES)
    assert all(taken > 0 for taken in seconds.values())
