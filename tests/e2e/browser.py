"""A headless Chromium for tests: the one that DMP_CHROMIUM names, the system's, or Playwright's own.

Where there is none the tests are skipped; under `make e2e`, which sets DMP_E2E, the run ends immediately with an error.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if os.environ.get("DMP_E2E"):
    import playwright.sync_api as api
else:
    api = pytest.importorskip("playwright.sync_api", reason="the browser tests need Playwright: pip install '.[e2e]'")

PATIENCE = 180_000  # milliseconds
HEADLESS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
"""It can reach this machine only."""


def find_browser() -> str | None:
    """Path of a Chromium, None for Playwright's own; without any, skips the test, or fails under `make e2e`."""
    if named := os.environ.get("DMP_CHROMIUM"):
        return named
    if found := next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None):
        return found
    with api.sync_playwright() as playwright:
        if Path(playwright.chromium.executable_path).exists():
            return None
    missing = (
        "no browser for the tests in tests/e2e: install one (apt install chromium, or .venv/bin/playwright install "
        "--with-deps chromium), or name one by DMP_CHROMIUM"
    )
    if os.environ.get("DMP_E2E"):
        pytest.fail(f"{missing}; all other tests: make e2e PYTEST_FLAGS=--continue-on-collection-errors", pytrace=False)
    pytest.skip(missing)


@contextmanager
def launched(flags: list[str] = HEADLESS) -> Iterator[api.Browser]:
    """A browser that is closed at the end."""
    path = find_browser()
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=flags, timeout=PATIENCE)
        yield opened
        opened.close()


if os.environ.get("DMP_E2E"):
    find_browser()  # during collection: one message immediately, instead of many after twenty minutes
