"""The `dmp` command: thin typer functions over the other rooms.

Exit codes: 0 done, 2 bad input, 130 and 143 interrupted (SIGINT, SIGTERM), 1 all else.
"""

from __future__ import annotations

import sys
from typing import Any

from dmp_core.cli.interrupts import Interrupts


def main() -> None:
    """Console entry point; an error ends with its message alone, on one line."""
    with Interrupts():
        from dmp_core.cli.errors import guarded  # after the signals, since all commands take seconds to import

        sys.exit(guarded(lambda: __getattr__("app")(standalone_mode=False)))


def __getattr__(name: str) -> Any:
    """`from dmp_core.cli import app`, imported only then."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dmp_core.cli.commands import app

    return app
