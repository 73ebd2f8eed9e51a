"""One tiny base model for all methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.tiny import write_base


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("tiny") / "base")
