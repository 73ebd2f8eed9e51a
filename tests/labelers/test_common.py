"""Shared by the labelers: NaN and infinity do not become labels."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from dmp_core.errors import NotFinite
from dmp_core.labelers.common import check_finite, in_parts


def test_the_first_sample_that_is_not_finite_is_named_for_any_batch_size() -> None:
    def label(part: Tensor) -> Tensor:
        check_finite(part)
        return part * 2

    images = torch.rand(5, 3, 4, 4)
    for size in (1, 2, 5, 8):
        assert torch.equal(in_parts(images, size, label), images * 2)
    for value in (float("nan"), float("inf"), -float("inf")):
        images[3, 1, 2, 2] = value
        for size in (1, 2, 5, 8):
            with pytest.raises(NotFinite, match="sample 3 of the batch: the model's output holds NaN") as caught:
                in_parts(images, size, label)
            named = caught.value.named(["a", "b", "c", "train-00000003", "e"])
            assert str(named).startswith("train-00000003: the model's output")
            assert str(pickle.loads(pickle.dumps(named))) == str(named)
