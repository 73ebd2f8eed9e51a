"""The modalities by name: built in, registered by installed packages, and defined in the configuration.

A package registers its own as an entry point of the group `dmp.modalities`, which refers to a `Modality`:

    [project.entry-points."dmp.modalities"]
    edge = "my_package.edge:MODALITY"
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module, metadata
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from dmp_core.errors import InputError
from dmp_core.modalities.base import Axes, Modality
from dmp_core.modalities.settings import OwnModality
from dmp_core.text import did_you_mean

ENTRY_POINTS = "dmp.modalities"
BUILT_IN = ("normal", "depth", "segmentation", "albedo", "shading")
"""In the order of tables and figures."""
ModalityName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60, examples=[*BUILT_IN])]
"""Name of a built-in modality, of one that a package registers, or of one of `own_modalities`."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TAKEN = {"image", "images", "train", "none"} | {
    "json",
    "png",
    "jpg",
    "jpeg",
    "npy",
    "truth",
    "seg",
    "flip",
    "pred",
    "view",
}

Own = Mapping[str, OwnModality]
_OWN = TypeAdapter(dict[str, OwnModality])


def modality_names() -> tuple[str, ...]:
    """Names of the modalities that every configuration knows."""
    return (*BUILT_IN, *_announced(tuple(sys.path)))


@cache
def _announced(path: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the modalities that installed packages register; path: where Python looks for packages."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)} - set(BUILT_IN)))


def find_modality(name: str, own: OwnModality | None = None) -> Modality:
    """A modality by its name; own: its definition in the configuration, if any.

    Raises InputError for an unknown one, and for an entry point that is not a modality.
    """
    if own is not None:
        return _built(name, _OWN.dump_json({name: own}).decode())
    if name in BUILT_IN or name in modality_names():
        return _loaded(name)
    raise InputError(
        f"modality {name!r} is unknown; choose one of: {', '.join(modality_names())}; or describe it under "
        f"`own_modalities`{_give_one(name) or did_you_mean(name, modality_names())}"
    )


def _give_one(name: str) -> str:
    """For `normal,depth`, where one name is expected."""
    names = [part.strip() for part in name.split(",")]
    known = len(names) > 1 and all(part in modality_names() for part in names)
    return f"; give one at a time: {' '.join(f'--modality {part}' for part in names)}" if known else ""


def modality_of(which: str | Modality) -> Modality:
    """The modality itself, or the one of that name."""
    return which if isinstance(which, Modality) else find_modality(which)


@cache
def with_axes(modality: Modality, axes: Axes) -> Modality:
    """The modality whose imported files have these axes; the same object each time, so that a folder is listed once."""
    return modality if axes == modality.file_axes else replace(modality, file_axes=axes)


def built_in() -> list[Modality]:
    return [find_modality(name) for name in BUILT_IN]


def with_built_in(modalities: Iterable[Modality]) -> list[Modality]:
    """The built-in ones, then the others."""
    return [*built_in(), *(modality for modality in modalities if modality.name not in BUILT_IN)]


def modalities_of(config: Mapping[str, Any]) -> list[Modality]:
    """Those that a stored configuration may refer to: all known ones, then those that it defines."""
    own = _OWN.validate_python(config.get("own_modalities") or {})
    return [*map(find_modality, modality_names()), *(find_modality(name, own[name]) for name in own)]


def modality_of_stage(config: Mapping[str, Any]) -> Modality:
    """The modality in a stage's stored settings (`task`, `own`)."""
    own = config.get("own")
    return find_modality(config["task"], None if own is None else _OWN.validate_python({"own": own})["own"])


def check_own(own: Own) -> None:
    """Raise ValueError for names that are not valid as names of members, files and options."""
    for name in own:
        if not _NAME.fullmatch(name) or name in _TAKEN or name in modality_names():
            taken = f"; {name} is taken" if name in _TAKEN or name in modality_names() else ""
            raise ValueError(f"own_modalities.{name}: a name has small letters, digits and single underscores{taken}")


@cache
def _built(name: str, described: str) -> Modality:
    settings = _OWN.validate_json(described)[name]
    return replace(settings.build(name), description=settings.model_dump(mode="json"))


@cache
def _loaded(name: str) -> Modality:
    if name in BUILT_IN:
        built_in: Modality = import_module(f"dmp_core.modalities.{name}").MODALITY
        return built_in
    point = next(iter(metadata.entry_points(group=ENTRY_POINTS, name=name)))
    try:
        loaded = point.load()
    except Exception as error:  # another package's import may raise anything
        raise InputError(
            f"modality {name!r}: {point.value} cannot be imported ({error}); fix or remove that package"
        ) from None
    if not isinstance(loaded, Modality) or loaded.name != name:
        raise InputError(f"modality {name!r}: {point.value} is not a Modality of that name; see docs/modalities.md")
    return loaded
