"""DMP Pipeline: keywords in, a labelled dataset and a dense predictor out."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Import `Predictor` on first use, so that importing the package stays light."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("dmp_core.requests.predictor").Predictor
