"""All stages, in the order of the DAG. A new stage is its file and its name here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmp_core.stages.base import StageKind

PER_SPLIT = ("prompts", "images", "labels", "quality", "shards")
"""Their `add(draft, split)` is called for every split."""
PER_MODALITY = ("latents", "editor", "train", "predict", "evaluate")
"""Their `add(draft, modality)` is called for every modality, if models are planned."""
LAST = ("report",)
"""Their `add(draft)` is called at the end."""
STAGES = (*PER_SPLIT, *PER_MODALITY, *LAST)


def stage_module(name: str) -> Any:
    """The module of a stage; see `dmp_core.stages.base`."""
    return import_module(f"dmp_core.stages.{name}")


@cache
def kind_of(name: str) -> StageKind:
    kind: StageKind = stage_module(name).KIND
    return kind
