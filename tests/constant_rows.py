"""The constant predictor's scores, as the evaluate stage collects them batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from dmp_core.modalities import Modality
from dmp_core.scoring.constant import constant_like
from dmp_core.scoring.protocol import ScoreTable, score
from dmp_core.scoring.registry import CONSTANT


def score_constant(
    modality: Modality | str, value: NDArray[Any], true: NDArray[Any], keys: Sequence[str], split: str = ""
) -> ScoreTable:
    return score(modality, constant_like(modality, value, true), true, keys, row=CONSTANT, split=split)
