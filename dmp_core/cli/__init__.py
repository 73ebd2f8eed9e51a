"""The `dmp` command: thin typer functions over the other packages.

Exit codes: 0 done, 2 bad input, 130 and 143 interrupted (SIGINT, SIGTERM), 1 any other error.
"""

from __future__ import annotations

import sys
from typing import Any

from dmp_core.cli.interrupts import Interrupts


def main() -> None:
    """Console entry point; an error is reported on one line."""
    with Interrupts():
        from dmp_core.cli.errors import guarded  # after the signals, since all commands take seconds to import

        sys.exit(guarded(lambda: __getattr__("app")(_rename_old_options(sys.argv[1:]), standalone_mode=False)))


def _rename_old_options(arguments: list[str]) -> list[str]:
    """Read `--task`, `--tasks` and `--methods` under their current names, with a notice."""
    words = {"--task": "--modality", "--tasks": "--modalities", "-t": "--modalities", "--methods": "--variants"}
    older = {argument.partition("=")[0] for argument in arguments} & words.keys()
    for word in sorted(older):
        sys.stderr.write(f"{word} is read as {words[word]}, its current name\n")
    return [words.get(word, word) + equals + value for word, equals, value in (a.partition("=") for a in arguments)]


def __getattr__(name: str) -> Any:
    """Import `app` on first use."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dmp_core.cli.commands import app

    return app
