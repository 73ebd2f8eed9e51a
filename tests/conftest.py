"""What every test shares: no network, no telemetry, few threads, a workspace of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Set before torch, transformers and prefect are imported, since they read them at import time.
os.environ.update(
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="90",
    PREFECT_LOGGING_LEVEL="CRITICAL",
    MPLBACKEND="Agg",
)
# The models under test are tiny: threads cost more than they give, and one thread is reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow or busy machine is no defect of the code, so no deadline; the same examples on every machine.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Keep Prefect's database out of the user's home, and keep it between runs: building it takes seconds.

    Each process of pytest-xdist has its own, as two servers on one database wait for each other.
    """
    assert config.cache is not None
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker or "PREFECT_HOME" not in os.environ:
        os.environ["PREFECT_HOME"] = str(config.cache.mkdir(f"prefect{worker}"))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty pipeline workspace."""
    path = tmp_path / "workspace"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """No test inherits a model or worker processes from another one."""
    yield
    from dmp_core.memory import SHARED

    SHARED.clear()
