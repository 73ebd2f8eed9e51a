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

        sys.exit(guarded(lambda: __getattr__("app")(_in_todays_words(sys.argv[1:]), standalone_mode=False)))


def _in_todays_words(arguments: list[str]) -> list[str]:
    """`--task` and `--tasks` are read as the options that they are called now, with a notice."""
    words = {"--task": "--modality", "--tasks": "--modalities", "-t": "--modalities"}
    older = {argument.partition("=")[0] for argument in arguments} & words.keys()
    for word in sorted(older):
        sys.stderr.write(f"{word} is read as {words[word]}, its name now\n")
    return [words.get(word, word) + equals + value for word, equals, value in (a.partition("=") for a in arguments)]


def __getattr__(name: str) -> Any:
    """`from dmp_core.cli import app`, imported only then."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dmp_core.cli.commands import app

    return app
