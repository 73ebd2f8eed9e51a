"""Labels that hardly are what they should be: the paper preset's bounds as warnings, each with its likely cause."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from dmp_core.config.base import read_yaml
from dmp_core.config.stages import TASKS, QualityConfig
from dmp_core.quality.gates import failing, gates_for
from dmp_core.resources import manifest_path

if TYPE_CHECKING:
    import pandas as pd

_CAUSES = {
    "min_labelled": "is 'no label' stored as another value?",
    "min_unit": "are they 8 bits of (n + 1) / 2, and not scaled or compressed?",
    "min_normal_z": "are the axes others? x points right, y up, z towards the viewer",
    "max_far": "are they millimetres? Metres are expected",
    "min_classes": "are they class ids of ADE20K-150, and not a mask?",
    "min_label_std": "is the map constant, or in another range than 0 to 255?",
}


def doubts(tables: Mapping[str, pd.DataFrame], quality: QualityConfig | None = None) -> list[str]:
    """One line per task and bound of the paper preset that samples fail; none for bounds that `quality` sets itself.

    tables: task → its scores, one row per sample, as `label_scores` has them.
    """
    lines = []
    for task, gates in gates_for(_paper(), TASKS).items():
        for gate, bound in gates.items() if task in tables else ():
            if gate not in _CAUSES or (quality is not None and getattr(quality, gate) is not None):
                continue
            table, score = tables[task], gate.partition("_")[2]
            keys = failing(table, gate, bound)
            if keys:
                middle = table[table["key"].isin(keys)][score].median()
                lines.append(
                    f"{len(keys)} of {len(table)} {task} labels look wrong ({score} {middle:.3g}, usual are "
                    f"{'at least' if gate.startswith('min') else 'at most'} {bound:g}): {_CAUSES[gate]} "
                    f"(--set quality.{gate}={bound:g} leaves such samples out)"
                )
    return lines


@cache
def _paper() -> QualityConfig:
    return QualityConfig.model_validate(read_yaml(manifest_path("presets", "paper.yaml"))["quality"])
