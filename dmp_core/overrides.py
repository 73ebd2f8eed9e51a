"""Settings laid over settings: files and `--set a.b=value` over presets and recipes."""

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
"""Characters of an override that an error repeats."""


def layered(
    settings: dict[str, Any], source: str, file: str | Path | None, overrides: list[str] | None
) -> tuple[dict[str, Any], str]:
    """Settings with a file, then `a.b=value` overrides laid over them, and what to call the whole in an error."""
    if file is not None:
        settings, source = merge(settings, renamed(read_yaml(file), str(file))), str(file)
    for override in overrides or []:
        settings = merge(settings, renamed(parse_override(override), f"--set {shortened(override)}"))
    if overrides:
        one = masked(overrides[0]) if len(overrides) == 1 else ""
        source = f"{source} with --set {one if len(one) <= _LONGEST else shortened(one)}".rstrip()
    return settings, source


def renamed(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings in today's words, whatever version they were written for; one notice per process.

    Raises InputError where both words are used.
    """
    if "tasks" not in settings:
        return settings
    if "modalities" in settings:
        raise InputError(f"{source}: `tasks` is the older word for `modalities`; give one of the two")
    _notice()
    return {"modalities" if name == "tasks" else name: value for name, value in settings.items()}


@cache
def _notice() -> None:
    log.warning("`tasks` is read as `modalities`, the word that configurations use now")


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Deep merge; lists and changed kinds and methods replace, since half of another kind's fields is nonsense."""
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
