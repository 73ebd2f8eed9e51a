"""Models that ship with the package, by reference: `shipped:NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dmp_core.errors import InputError
from dmp_core.resources import manifest_root

SHIPPED = "shipped:"
Kind = Literal["priors", "adapters"]


def shipped_folder(reference: str | Path, kind: Kind, field: str) -> Path | None:
    """The folder of `shipped:NAME`; None for any other reference. Raises InputError that lists the names."""
    if not str(reference).startswith(SHIPPED):
        return None
    root = manifest_root() / kind
    names = sorted(path.name for path in root.glob("*") if path.is_dir())
    name = str(reference).removeprefix(SHIPPED)
    if name not in names:
        raise InputError(
            f"{field}: {reference}: no such model ships with the package; there are: {', '.join(names) or 'none'}"
        )
    return root / name
