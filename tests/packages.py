"""Packages of somebody else, as pip would install them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def installed_package(site: Path, module: str, code: str, entry_points: str) -> Iterator[None]:
    """Inside, a package of one module with this code announces these entry points."""
    folder = site / f"{module}-1.0.dist-info"
    folder.mkdir(parents=True)
    (site / f"{module}.py").write_text(code)
    (folder / "METADATA").write_text(f"Name: {module}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(entry_points)
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(site))
