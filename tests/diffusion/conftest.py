"""One tiny Stable Diffusion for all tests of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_core.diffusion import DMPPipeline
from tests.golden.tiny_sd import build_parts, write_base


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "tiny_sd")


@pytest.fixture(scope="session")
def pipeline(base_folder: Path) -> DMPPipeline:
    """Without an adapter; no test may change it."""
    loaded = DMPPipeline.from_pretrained(base_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def unet() -> Any:
    """A new U-Net, which may be changed."""
    return build_parts()["unet"]


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
