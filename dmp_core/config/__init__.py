"""The configuration: `pipeline` combines the packages' settings, `presets` reads presets and files."""

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.presets import dump, load_config, preset_names
from dmp_core.settings import Settings

__all__ = ["PipelineConfig", "Settings", "dump", "load_config", "preset_names"]
