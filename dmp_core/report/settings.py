"""Settings of the report."""

from __future__ import annotations

from pydantic import (
    PositiveInt,
)

from dmp_core.settings import Settings


class ReportConfig(Settings):
    """The page of results."""

    gallery: PositiveInt = 8
    """Images shown per split."""
