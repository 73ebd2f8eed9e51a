"""One small run of the whole DAG, for every command that reads a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import in_process

SMOKE = ("--preset", "smoke", "--set", "modalities=[depth]")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its workspace; no test may change it."""
    workspace = tmp_path_factory.mktemp("smoke") / "w"
    in_process("run", *SMOKE, "--workspace", workspace)
    return workspace
