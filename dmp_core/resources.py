"""Paths of the declarative data (presets, keywords, palettes, vocabularies).

In a checkout it is in ``data_manifests/`` at the repository root; an installed
wheel contains the same tree as ``dmp_core/_data_manifests``.
"""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def manifest_root() -> Path:
    """The folder of the manifests: the wheel's copy, else the checkout's."""
    installed = _PACKAGE / "_data_manifests"
    return installed if installed.is_dir() else _PACKAGE.parent / "data_manifests"


def manifest_path(*parts: str) -> Path:
    """Path of one manifest, e.g. ``manifest_path("palettes", "ade20k.csv")``."""
    path = manifest_root().joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(
            f"data manifest {'/'.join(parts)!r} not found under {manifest_root()}: "
            "reinstall dmp-pipeline, or run from a complete checkout"
        )
    return path


@cache
def ade20k_classes() -> tuple[str, ...]:
    """Names of the 150 ADE20K classes; the index is the id."""
    text = manifest_path("ade20k_classes.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
