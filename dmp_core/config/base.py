"""What every configuration model shares: strictness, and readable errors."""

from __future__ import annotations

import re
from pathlib import Path
from reprlib import Repr
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dmp_core.errors import InputError

_SHOWN = 5
"""Faults of one configuration that an error names."""
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


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
        loaded = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a configuration file ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML ({one_line(error)})") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(loaded).__name__}")
    return loaded


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, for a message of our own."""
    return " ".join(str(error).split()) or type(error).__name__


def shortened(value: object) -> str:
    """A value as an error shows it: quoted, its middle left out if it is long."""
    return _SHORT.repr(value)


def raise_readable(error: ValidationError, source: str) -> NoReturn:
    """Raise InputError with what pydantic reports, as `readable` puts it."""
    raise InputError(readable(error, source)) from None


def readable(error: ValidationError, source: str) -> str:
    """What pydantic reports: per field where, what is wrong, and what was given unless it is a whole section."""
    found: list[str] = []
    for item in error.errors():
        # Tags of unions stand in the way to a field, but the user never wrote them.
        field = ".".join(str(part) for part in item["loc"] if not str(part).startswith("<"))
        known = item["type"] in ("missing", "extra_forbidden") or isinstance(item["input"], dict | BaseModel)
        given = "" if known else f" (given: {shortened(item['input'])})"
        found.append(f"{field}: {_plain(item['type'], item['msg'])}{given}".removeprefix(": "))
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{source}: {'; '.join(found[:_SHOWN])}{more}"


def _plain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown setting; remove it or correct its spelling (see `dmp config show`)"
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
