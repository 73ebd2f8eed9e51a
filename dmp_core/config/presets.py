"""Presets, and how they are resolved to a configuration: preset < file < `--set`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.errors import InputError
from dmp_core.overrides import layered, merge, renamed
from dmp_core.resources import manifest_path
from dmp_core.settings import Settings, raise_readable, read_yaml, shortened
from dmp_core.text import did_you_mean

log = logging.getLogger(__name__)


def preset_names() -> list[str]:
    return sorted(path.stem for path in manifest_path("presets").glob("*.yaml"))


def load_config(
    preset: str = "mini",
    file: str | Path | None = None,
    overrides: list[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> PipelineConfig:
    """Resolve preset < defaults < file < `a.b=value` overrides into one validated configuration.

    A file with `extends` (a preset's name, or null: it is complete) overrides that preset instead.
    Raises InputError that names the preset, file or field, and the fix.
    """
    if file is not None:
        _warn_if_unread(preset, str(file))
    settings, source = merge(_resolve_parent(_read_preset(preset)), dict(defaults or {})), f"preset {preset}"
    if file is not None and "extends" in (own := renamed(read_yaml(file), str(file))):
        parent = _resolve_parent({"extends": own["extends"]})
        settings = merge(merge(parent, dict(defaults or {})), own)
        preset, source, file = settings.pop("extends") or preset, str(file), None
    return validate(*layered({"preset": preset} | settings, source, file, overrides))


@cache
def _warn_if_unread(preset: str, file: str) -> None:
    """Once per file: a complete configuration, as `dmp dataset import` writes it, leaves nothing to the preset."""
    other = read_yaml(file).get("preset")
    if preset not in (other, "mini") and other is not None:
        log.warning("--preset %s has no effect: %s is a complete configuration, made from %s", preset, file, other)


def _read_preset(name: object, place: str = "") -> dict[str, Any]:
    """place: start of the error, which names the field that refers to the preset."""
    if name not in preset_names():
        raise InputError(
            f"{place}preset {shortened(name)} does not exist; choose one of: {', '.join(preset_names())}"
            f"{did_you_mean(name, preset_names())}"
        )
    return read_yaml(manifest_path("presets", f"{name}.yaml"))


def validate(settings: dict[str, Any], source: str) -> PipelineConfig:
    """Validate a plain mapping; every line of the error starts with `source`."""
    try:
        return PipelineConfig.model_validate(settings)
    except ValidationError as error:
        raise_readable(error, source, PipelineConfig)


def _resolve_parent(settings: dict[str, Any]) -> dict[str, Any]:
    """A preset may build on another one: `extends: mini`."""
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    return merge(_resolve_parent(_read_preset(parent, "extends: ")), settings)


def dump(config: Settings) -> str:
    """The configuration as YAML, complete and in the order of the DAG."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=100, allow_unicode=True)
