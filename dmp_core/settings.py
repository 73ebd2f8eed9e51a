"""Base of all settings: strict fields, readable errors, and reading of YAML."""

from __future__ import annotations

import os
import re
import reprlib
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue

from dmp_core.errors import InputError
from dmp_core.passwords import masked
from dmp_core.reading import is_utf8, read_text, shown
from dmp_core.text import did_you_mean
from dmp_core.yaml import DEEPEST, load_yaml

_LONGEST_FILE = 2**24  # bytes
_MOST_VALUES = 100_000
_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother = 2, 80, 80

_SHOWN = 5
"""Most faults that one error lists."""


def _section_title(model: type) -> str:
    """`prompts` for PromptsConfig, `render images` for RenderImages: titles in forms made from the schema."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", " ", model.__name__.removesuffix("Config")).lower()


class Settings(BaseModel):
    """Base of all configuration: unknown keys are errors, instances are immutable.

    In the JSON schema a field's title is its name, as files and `--set` spell it; one that a subclass redefines
    keeps its meaning.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        model_title_generator=_section_title,
        field_title_generator=lambda name, _: name,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        for name, field in handler.resolve_ref_schema(schema).get("properties", {}).items():
            parents = (getattr(parent, "model_fields", {}).get(name) for parent in cls.__mro__)
            meaning = next((parent.description for parent in parents if parent and parent.description), None)
            if meaning:
                field.setdefault("description", meaning)
        return schema


def since(default: Any) -> Any:
    """A field newer than existing workspaces: at its default it is omitted from dumps, and so from fingerprints."""
    return Field(default=default, exclude_if=lambda value: value == default)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; raises InputError naming the file when it is not one."""
    if not os.path.exists(path):
        raise InputError(f"{shown(path)}: no such configuration file")
    loaded = parse_yaml(read_text(path, _LONGEST_FILE), shown(path))
    if not isinstance(loaded, dict):
        raise InputError(f"{shown(path)}: expected a mapping of settings, found {type(loaded).__name__}")
    return loaded


def parse_yaml(text: str, source: str) -> Any:
    """Plain values of YAML; raises one InputError line, which starts with `source`, for invalid YAML."""
    try:
        loaded = load_yaml(text)
    # PyYAML's own errors, and others that it raises: KeyError, ValueError, AttributeError for values that fit no tag.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{source}: not valid YAML ({reason})") from None
    _values(loaded, source, {}, 0)
    return loaded


def _values(node: Any, source: str, known: dict[int, int], depth: int) -> int:
    """Number of values in a tree: anchors that refer to each other can expand to more than memory holds."""
    if isinstance(node, str) and not is_utf8(node):
        raise InputError(f"{source}: {shown(node[:40])} holds half of a character; write it whole")
    if not isinstance(node, dict | list | tuple | set):
        return 1
    if depth > DEEPEST:
        raise InputError(f"{source}: settings are nested more than {DEEPEST} levels deep, or hold themselves")
    if id(node) not in known:
        below = [*node, *node.values()] if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_values(item, source, known, depth + 1) for item in below)
        if known[id(node)] > _MOST_VALUES:
            raise InputError(f"{source}: more than {_MOST_VALUES} values once its anchors are filled in")
    return known[id(node)]


def shortened(value: object) -> str:
    """A value for an error message: quoted, and without its middle if it is long."""
    return _brief.repr(value)


def raise_readable(error: ValidationError, source: str, model: type[BaseModel] | None = None) -> NoReturn:
    """Raise InputError with pydantic's errors in the form of `readable`."""
    raise InputError(readable(error, source, model)) from None


def readable(error: ValidationError, source: str, model: type[BaseModel] | None = None) -> str:
    """Pydantic's errors: per field its name, the problem, and the given value unless it is a whole section.

    model: what was validated; with it, misspelt fields come with the name that was probably meant.
    """
    found: list[str] = []
    for item in error.errors():
        # A field's path contains the tags of unions, which the user never wrote.
        field = ".".join(str(part) for part in item["loc"] if not str(part).startswith("<"))
        known = item["type"] in ("missing", "extra_forbidden") or isinstance(item["input"], dict | BaseModel)
        given = "" if known else f" (given: {shortened(item['input'])})"
        meant = did_you_mean(item["loc"][-1], _fields_at(model, item["loc"])) if item["type"] == _MISSPELT else ""
        found.append(f"{field}: {_plain(item['type'], item['msg'])}{given}{meant}".removeprefix(": "))
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return masked(f"{source}: {'; '.join(found[:_SHOWN])}{more}")


_MISSPELT = "extra_forbidden"


def _fields_at(model: type[BaseModel] | None, place: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that the section may have in which an error's last part lies."""
    sections = [] if model is None else [model]
    for part in place[:-1]:
        below = [field.annotation for one in sections if (field := one.model_fields.get(str(part)))]
        if below:
            sections = [one for annotation in below for one in _models_in(annotation)]
        else:  # the tag of a union, which is the default of its `kind`; or a key of a mapping
            tagged = [one for one in sections if part in [field.default for field in one.model_fields.values()]]
            sections = tagged or sections
    return [name for one in sections for name in one.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _plain(kind: str, message: str) -> str:
    if kind == _MISSPELT:
        return "unknown setting; remove it or correct its spelling (see `dmp config show`)"
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
