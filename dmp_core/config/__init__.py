"""Typed settings and presets. One file per concern: `base`, `stages` (one model a stage), `pipeline`."""

from dmp_core.config.base import Settings
from dmp_core.config.pipeline import PipelineConfig, dump, load_config, preset_names

__all__ = ["PipelineConfig", "Settings", "dump", "load_config", "preset_names"]
