"""Both published normal networks, full size, under the deterministic fill: names, features, outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmp_core.labelers import omnidata
from tests.golden.fill import fill_value, uniform
from tests.golden.vectors import FOLDER, measure

ARRAYS = np.load(FOLDER / "omnidata.npz")
# This file has its facts at the top level, and no list of arrays.
FACTS: dict[str, Any] = json.loads((FOLDER / "omnidata.json").read_text())
NAMES = {"v2": "omnidata_v2", "3dcc": "3dcc"}
CONTAINERS = {"v2": "state_dict", "3dcc": "('rgb', 'normal')"}
# (variant, height and width, seed of the image)
PASSES = [
    ("3dcc", 384, 601),
    *(pytest.param(*case, marks=pytest.mark.e2e) for case in (("v2", 384, 601), ("3dcc", 512, 602))),
]
TOLERANCE = 1e-3


@pytest.mark.parametrize("variant", NAMES)
def test_names_and_shapes(variant: str) -> None:
    with torch.device("meta"):
        network = omnidata.network(variant)
    # Of v2 the network is recorded, of 3dcc the file.
    prefix = "" if variant == "v2" else omnidata.VARIANTS[variant].prefix
    shapes = {prefix + name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == FACTS[f"{NAMES[variant]}.state_dict"]
    assert sum(tensor.numel() for tensor in network.parameters()) == FACTS[f"{NAMES[variant]}.n_params"]


@pytest.fixture(scope="module")
def filled() -> dict[str, Tensor]:
    """Both variants get the same weights: the fill goes by the names without prefix."""
    shapes = FACTS["omnidata_v2.state_dict"]
    return {name: fill_value(name, tuple(shape)) for name, shape in shapes.items()}


def labeler(variant: str, filled: dict[str, Tensor]) -> Any:
    """As built by `build` from a published file, without half a gigabyte on disk."""
    prefix = omnidata.VARIANTS[variant].prefix
    file = {CONTAINERS[variant]: {prefix + name: tensor for name, tensor in filled.items()}, "epoch": 1}
    found, state = omnidata.unwrap(file, Path("published"))
    assert found == variant
    with torch.device("meta"):
        network = omnidata.network(variant)
    network.load_state_dict(state, strict=True, assign=True)
    return omnidata.OmnidataLabeler(network.eval(), variant)


def check(name: str, actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    measure(name, actual, expected, tolerance)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("variant", "side", "seed"), PASSES)
def test_output(variant: str, side: int, seed: int, filled: dict[str, Tensor]) -> None:
    built, name = labeler(variant, filled), f"{NAMES[variant]}.{side}"
    seen: dict[str, Any] = {}

    def keep(network: nn.Module, _: Any, output: Tensor) -> None:
        seen["output"], seen["features"] = output, dict(network.pretrained.activations)

    built.network.register_forward_hook(keep)
    code = built.code(uniform(seed, (1, 3, side, side)))
    output = seen["output"]
    check(f"{name}.out_sub8", output[..., ::8, ::8], ARRAYS[f"{name}.out_sub8"])
    check(f"{name}.out_row100", output[0, :, 100, :], ARRAYS[f"{name}.out_row100"])
    check_summary(f"{name}.stats", output, FACTS[f"{name}.stats"])
    for hook, summary in FACTS[f"{name}.hook_stats"].items():
        check_summary(f"{name}.hook_stats.{hook}", seen["features"][hook], summary)
    levels = (code * 255).to(torch.uint8).movedim(1, -1)[:, ::8, ::8]
    check(f"{name}.uint8_sub8", levels, ARRAYS[f"{name}.uint8_sub8"], tolerance=1)
    assert not built.network.pretrained.activations


def check_summary(name: str, values: Tensor, summary: dict[str, Any]) -> None:
    assert list(values.shape) == summary["shape"], name
    wide = values.double()
    ours = {
        "mean": wide.mean(),
        "std": wide.std(),
        "min": wide.min(),
        "max": wide.max(),
        "sum": wide.sum(),
        "abssum": wide.abs().sum(),
        "frac_in_0_1": ((wide >= 0) & (wide <= 1)).double().mean(),
        "frac_zero": (wide == 0).double().mean(),
    }
    for key, expected in summary.items():
        if key != "shape":
            # Sums have the tolerance of all their terms together.
            terms = wide.numel() if key in ("sum", "abssum") else 1
            check(f"{name}.{key}", ours[key] / terms, expected / terms)
