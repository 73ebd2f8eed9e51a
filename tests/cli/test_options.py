"""The command line's names are a promise: scripts of users call them. A change here is deliberate, and in CHANGELOG."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from dmp_core.cli import app

FROZEN = Path(__file__).parents[1] / "data" / "cli_options.json"


def commands(command: Any, name: str) -> Iterator[tuple[str, list[str]]]:
    """(command, its arguments and options) of a tree of commands."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, sorted(option for parameter in command.params for option in parameter.opts)
        return
    for word, inner in sorted(below.items()):
        yield from commands(inner, f"{name} {word}")


def test_commands_and_options_are_those_that_are_promised():
    found = dict(commands(typer.main.get_command(app), "dmp"))
    assert found == json.loads(FROZEN.read_text())
