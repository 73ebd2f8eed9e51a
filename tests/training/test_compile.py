"""Compiled blocks compute the same losses and predictions, up to rounding."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.methods.dmp.finetune import finetune, make_card
from dmp_core.methods.dmp.predict import load_predictor, predict_batch
from dmp_core.training.precision import matrix_products
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_pairs
from tests.training.test_finetune import CONFIG


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_and_prediction(tiny_folder: Path, tmp_path: Path) -> None:
    base, results = BaseConfig(model=str(tiny_folder)), []
    card = make_card("normal", str(tiny_folder), sampling=SamplingConfig().model_dump())
    for compiled in (False, True):
        config = CONFIG.model_copy(update={"compile": compiled, "steps": 4})
        folder = tmp_path / str(compiled)
        results.append(finetune(config, load_base(base), toy_pairs(), folder / "work", folder / "adapter", card=card))
    assert results[1].losses == pytest.approx(results[0].losses, rel=1e-4)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    plain, fast = (
        predict_batch(
            load_predictor(base, results[0].folder, compiled=compiled), images, "normal", SamplingConfig(num_steps=2)
        )
        for compiled in (False, True)
    )
    np.testing.assert_allclose(fast, plain, atol=1e-3)


@pytest.mark.parametrize("tf32", [False, True])
def test_the_precision_of_matrix_products_is_restored(tf32: Any) -> None:
    before = torch.get_float32_matmul_precision()
    with matrix_products(tf32):
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert torch.get_float32_matmul_precision() == before
