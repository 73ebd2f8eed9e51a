"""Commands in this process, whose stages run in turn: imports and Prefect's server are most of a short run's time."""

from __future__ import annotations

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dmp_core.cli import app, running

WITHOUT_PREFECT = "import sys; sys.modules['prefect'] = None; from dmp_core.cli import main; main()"
"""A program: `dmp` as if Prefect were not installed."""


def in_process(*arguments: object, fails: bool = False) -> Result:
    """The result of `dmp` with these arguments; raises the command's error unless it is expected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_runner", lambda: running._in_turn)
        return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=fails)
