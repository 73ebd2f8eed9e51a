"""Typed settings and presets. One file per concern: `base`, `stages` (one model a stage), `pipeline`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmp_core.config.base import Settings

if TYPE_CHECKING:
    from dmp_core.config.pipeline import PipelineConfig, dump, load_config, preset_names

__all__ = ["PipelineConfig", "Settings", "dump", "load_config", "preset_names"]


def __getattr__(name: str) -> Any:
    """The pipeline's on first use: it names modalities, which have settings themselves."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dmp_core.config.pipeline"), name)
