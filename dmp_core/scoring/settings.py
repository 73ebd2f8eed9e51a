"""Settings of the scores."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from dmp_core.names import Source
from dmp_core.settings import Settings, since


class EvaluateConfig(Settings):
    """Scores of the predictions."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples for the 95 % confidence intervals."""
    sources: list[Source] = since([])
    """Further sources of x in eq. 4 (`sampling.source`): DMP is predicted and scored with each, one row per source."""
