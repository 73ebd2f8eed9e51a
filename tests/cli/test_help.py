"""Version, completion, examples: what the command line says about itself."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import subprocess
import sys

import pytest
import typer

from dmp_core.cli import _rename_old_options, app
from dmp_core.cli.commands import commands
from dmp_core.cli.examples import EXAMPLES
from tests.commands import in_process


def test_version() -> None:
    assert in_process("--version").output.split() == ["dmp-pipeline", importlib.metadata.version("dmp-pipeline")]


def test_completion_knows_the_commands() -> None:
    asked = {"_DMP_COMPLETE": "complete_bash", "COMP_WORDS": "dmp dataset p", "COMP_CWORD": "2"}
    program = "import sys; sys.argv = ['dmp']; from dmp_core.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True)
    assert shown.stdout.split() == ["preview", "push", "pull"], shown.stderr


def test_every_command_has_an_example_and_no_other_one_does() -> None:
    assert {words for words, _ in commands()} == EXAMPLES.keys()


@pytest.mark.parametrize("words", EXAMPLES)
def test_the_example_is_a_valid_call_of_the_command(words: str) -> None:
    name, *rest = words.split()
    program, *arguments = shlex.split(EXAMPLES[words])
    assert program == name
    assert arguments[: len(rest)] == rest
    command = typer.main.get_command(app)
    for word in rest:
        command = command.commands[word]
    command.make_context(words, arguments[len(rest) :])
    assert EXAMPLES[words] in " ".join(in_process(*rest, "--help").output.split())


@pytest.mark.parametrize("old", [["--methods", "dmp"], ["--methods=dmp"]])
def test_the_older_name_of_variants_is_read_with_one_notice(old: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = _rename_old_options(["compare", *old, *old])
    assert [word.partition("=")[0] for word in found if word.startswith("--")] == ["--variants", "--variants"]
    assert capsys.readouterr().err == "--methods is read as --variants, its current name\n"
