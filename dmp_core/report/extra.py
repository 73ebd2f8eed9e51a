"""matplotlib is an extra: colour maps, fonts and plots need it, dataset cards do not."""

from __future__ import annotations

from types import ModuleType

from dmp_core.errors import MissingExtra


def load_matplotlib() -> ModuleType:
    """matplotlib, or MissingExtra with the command that installs it."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    return matplotlib
