"""Shipped files of a finished adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_core.cli import ship
from dmp_core.diffusion import load_adapter
from dmp_core.errors import InputError
from dmp_core.methods.dmp.finetune import finetune
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.stages.registry import kind_of
from dmp_core.store import Manifest, Workspace
from dmp_core.training.logs import read_log
from dmp_core.training.settings import LoraConfig
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_pairs
from tests.training.tiny import write_base


def test_a_shipped_adapter_is_small_and_complete(tmp_path, monkeypatch):
    """Half-precision weights that load, the card, and a curve of few rows, each a mean or total of many."""
    monkeypatch.setattr(ship, "ROWS", 4)
    model = BaseConfig(model=str(write_base(tmp_path / "base")))
    out = kind_of("train").artefact(Workspace(str(tmp_path)), "normal-dmp", "0" * 12)
    with pytest.raises(InputError, match="no finished adapter here"):
        ship.ship_adapter(out, tmp_path / "shipped")
    config = TrainConfig(lora=LoraConfig(rank=4, targets="all"), steps=10, batch_size=4)
    made = finetune(config, load_base(model), toy_pairs(), tmp_path / "work", Path(out.path))
    out.write_bytes("manifest.json", _manifest(out).model_dump_json().encode())
    ship.ship_adapter(out, tmp_path / "shipped")
    assert load_adapter(load_base(model).unet, tmp_path / "shipped").num_steps == 5
    weights = load_file(tmp_path / "shipped" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    whole, thin = read_log(made.log), read_log(tmp_path / "shipped" / "loss.csv")
    assert [row.step for row in thin] == [3, 6, 9, 10]
    assert thin[0].loss == pytest.approx(sum(row.loss for row in whole[:3]) / 3, rel=1e-5)
    assert thin[-1].loss == pytest.approx(whole[-1].loss, rel=1e-5)
    assert sum(row.seconds for row in thin) == pytest.approx(sum(row.seconds for row in whole), rel=1e-4)


def _manifest(out) -> Manifest:
    return Manifest(
        stage=out.stage, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={}, files=[],
        samples=0, seconds=0.0, created="now",
    )  # fmt: skip
