"""The comparison of precisions, at tiny size on the CPU: float16 keeps three more bits than bfloat16."""

from __future__ import annotations

import pytest
import torch

from benchmarks import precision
from benchmarks.gpu import Machine

WHERE = Machine("cpu", torch.float32, "tiny")


@pytest.mark.parametrize("name", ["training step, gradient", "prediction, 1 step", "labels, pienet"])
def test_float16_is_nearer_to_float32_than_bfloat16(name: str):
    compute = precision.outputs(WHERE)[name]
    exact = precision.computed(compute, WHERE, torch.float32)
    assert precision.cells(exact, precision.computed(compute, WHERE, torch.float32)) == ["0", "0"]
    half, brain = (precision.cells(exact, precision.computed(compute, WHERE, dtype)) for dtype in precision.HALVES)
    assert 0 < 2 * float(half[1]) < float(brain[1]) < 10
    assert float(half[0]) >= float(half[1])


def test_differences_are_relative_and_what_fails_or_is_infinite_says_so():
    def broken(where: Machine):
        raise RuntimeError("no kernel for Half\nsecond line")

    assert precision.computed(broken, WHERE, torch.float16) == "no kernel for Half"
    exact = torch.tensor([1.0, -3.0])
    assert precision.cells(exact, "no kernel for Half") == ["no kernel for Half", ""]
    assert precision.cells(exact, torch.tensor([1.0, torch.inf])) == ["not finite", ""]
    assert precision.cells(exact, torch.tensor([1.5, -3.0])) == ["25", "12"]
