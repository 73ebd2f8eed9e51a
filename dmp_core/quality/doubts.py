"""Labels that are probably invalid: the paper preset's bounds as warnings, each with its likely cause."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from dmp_core.modalities import Modality, find_modality, modality_names
from dmp_core.quality.gates import failing, gates_for
from dmp_core.quality.settings import QualityConfig
from dmp_core.resources import manifest_path
from dmp_core.settings import read_yaml

if TYPE_CHECKING:
    import pandas as pd

_CAUSES = {
    "min_labelled": "is 'no label' stored as another value?",
    "min_unit": "are they 8 bits of (n + 1) / 2, and not scaled or compressed?",
    "min_normal_z": "are the axes others? x points right, y up, z towards the viewer",
    "max_far": "are they millimetres? Metres are expected",
    "min_classes": "are they {values}, and not a mask?",
    "min_label_std": "is the map constant, or in another range than {values}?",
}
"""Gate → likely cause of failing it; `values`: the expected values of the files."""


def doubts(
    tables: Mapping[str, pd.DataFrame],
    quality: QualityConfig | None = None,
    own: Mapping[str, Modality] = MappingProxyType({}),
) -> list[str]:
    """One line per modality and bound of the paper preset that samples fail; none for bounds that `quality` sets.

    tables: modality → its scores, one row per sample, from `label_scores`. own: modalities that are not built
    in, by name.
    """
    lines = []
    known = {name: find_modality(name) for name in modality_names() if name in tables and name not in own}
    modalities = {**known, **own}
    for name, gates in gates_for(_paper(), modalities.values()).items():
        for gate, bound in gates.items() if name in tables and name in modalities else ():
            if gate not in _CAUSES or (quality is not None and getattr(quality, gate) is not None):
                continue
            table, score = tables[name], gate.partition("_")[2]
            keys = failing(table, gate, bound)
            if keys and not isinstance(bound, list):
                middle = table[table["key"].isin(keys)][score].median()
                cause = _CAUSES[gate].format(values=modalities[name].stored_values)
                lines.append(
                    f"{len(keys)} of {len(table)} {name} labels look wrong ({score} {middle:.3g}, usual are "
                    f"{'at least' if gate.startswith('min') else 'at most'} {bound:g}): {cause} "
                    f"(--set quality.{gate}={bound:g} leaves such samples out)"
                )
    return lines


@cache
def _paper() -> QualityConfig:
    return QualityConfig.model_validate(read_yaml(manifest_path("presets", "paper.yaml"))["quality"])
