"""What every configuration model shares: strictness, and readable errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dmp_core.errors import InputError
from dmp_core.passwords import masked


def _section_title(model: type) -> str:
    """`prompts` of PromptsConfig, `render images` of RenderImages: what forms made of the schema show."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", " ", model.__name__.removesuffix("Config")).lower()


class Settings(BaseModel):
    """Base of all configuration: unknown keys are errors, instances are immutable.

    In the JSON schema a field's title is its name, as files and `--set` spell it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        model_title_generator=_section_title,
        field_title_generator=lambda name, _: name,
    )


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; raises InputError naming the file when it is not one."""
    path = Path(path)
    try:
        loaded = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(loaded).__name__}")
    return loaded


def raise_readable(error: ValidationError, source: str) -> NoReturn:
    """Turn pydantic's report into one line a field: where, what is wrong, what was given."""
    lines = []
    for item in error.errors():
        # Tags of unions stand in the way to a field, but the user never wrote them.
        field = ".".join(str(part) for part in item["loc"] if not str(part).startswith("<"))
        given = "" if item["type"] in ("missing", "extra_forbidden") else f" (given: {item['input']!r})"
        lines.append(f"{source}: {field}: {_plain(item['type'], item['msg'])}{given}")
    raise InputError(masked("\n".join(lines))) from None


def _plain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown setting; remove it or correct its spelling (see `dmp config show`)"
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
