"""Overrides of settings: files and `--set a.b=value` over presets and recipes."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError
from dmp_core.passwords import masked
from dmp_core.reading import is_utf8
from dmp_core.settings import parse_yaml, read_yaml, shortened

log = logging.getLogger(__name__)


_LONGEST_PATH = 20


_LONGEST = 60
"""Characters of an override that an error quotes."""


def layered(
    settings: dict[str, Any], source: str, file: str | Path | None, overrides: list[str] | None
) -> tuple[dict[str, Any], str]:
    """Settings overridden by a file, then by `a.b=value`; and the name of their source for errors."""
    if file is not None:
        settings, source = merge(settings, renamed(read_yaml(file), str(file))), str(file)
    for override in overrides or []:
        settings = merge(settings, renamed(parse_override(override), f"--set {shortened(override)}"))
    if overrides:
        one = masked(overrides[0]) if len(overrides) == 1 else ""
        source = f"{source} with --set {one if len(one) <= _LONGEST else shortened(one)}".rstrip()
    return settings, source


def renamed(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings under today's field names, whatever version they were written for; one notice per process.

    Raises InputError if both names are used.
    """
    if "tasks" not in settings:
        return settings
    if "modalities" in settings:
        raise InputError(f"{source}: `tasks` is the older name of `modalities`; give one of the two")
    _notice()
    return {"modalities" if name == "tasks" else name: value for name, value in settings.items()}


@cache
def _notice() -> None:
    log.warning("`tasks` is read as `modalities`, its current name")


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Deep merge; lists, and sections whose kind or method changes, are replaced, since their fields differ."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value)
            if isinstance(old, dict) and isinstance(value, dict) and value and _alike(old, value)
            else value
        )
    return merged


def _alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    kind, method = old.get("kind"), old.get("method", "dmp")
    return bool(new.get("kind", kind) == kind and new.get("method", method) == method)


def parse_override(text: str) -> dict[str, Any]:
    """`train.lora.rank=8` as a nested mapping; the value is read as YAML."""
    path, separator, value = text.partition("=")
    if not separator or not path.strip():
        raise InputError(f"--set {shortened(text)}: write it as field.subfield=value, e.g. --set train.steps=200")
    source = f"--set {shortened(text)}"
    nested = parse_yaml(value, source)
    parts = path.strip().split(".")
    if len(parts) > _LONGEST_PATH or not is_utf8(path):
        raise InputError(f"{source}: no such setting (see `dmp config show`)")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)
