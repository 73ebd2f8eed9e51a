"""User-provided text is printed literally: no markup, and no control characters of terminals."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from dmp_core.cli.console import PlainConsole, ProgressDisplay
from dmp_core.text import plain

NAMES = ["photo [draft].png", "[/f]", "[bold]x[/]", ":smile:", "a\\[b", "[link=file:///x]", "Küche", "部屋 \u3000x"]


def console(**options: object) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=100, **options)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name):
    assert plain(name) == name
    shown = console()
    shown.print(f"made {name}", soft_wrap=True)
    assert shown.file.getvalue() == f"made {name}\n"
    table = Table(title=name, title_justify="left")
    table.add_column(name)
    table.add_row(name)
    shown.print(table)
    assert shown.file.getvalue().count(name) == 4


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_names_as_they_are(terminal):
    shown = console(force_terminal=terminal)
    with ProgressDisplay(shown) as display:
        display.started("images/[/f]")
        display.advanced("images/[/f]", 1, 2, "[red]\x1b]0;title\x07")
        display.bars.refresh()
        display.finished("images/[/f]", 1.0, False)
    assert "✓ images/[/f]" in shown.file.getvalue()
    assert "\x1b]0" not in shown.file.getvalue()
    assert ("[red]\\x1b]0;title\\x07" in shown.file.getvalue()) == terminal


def test_a_run_shows_all_its_stages_and_what_stopped():
    shown = console(force_terminal=True)
    expected = {"images/train": 60.0, "images/test": 60.0, "train/normal": 120.0}

    def run() -> None:
        with ProgressDisplay(shown, expected=expected) as display:
            display.finished("images/train", 0.0, True)
            display.started("images/test")
            display.finished("images/test", 3.0, False)
            display.started("train/normal")
            display.advanced("train/normal", 5, 10, "loss 0.1")
            shown.print(display._overview())
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run()
    lines = [line.split() for line in shown.file.getvalue().splitlines()]
    assert ["images", "1", "1", "·", "·"] in lines
    assert ["train", "·", "·", "1", "·"] in lines
    assert "2/3 artefacts, about 2 min left" in shown.file.getvalue()
    assert "✗ train/normal" in shown.file.getvalue()


def test_control_characters_are_escaped():
    assert plain("a\x1b[2Jb\x07\r\x9b1m\n\t") == "a\\x1b[2Jb\\x07\\r\\x9b1m\\n\\t"
    assert plain("a\nb\x00", keep="\n") == "a\nb\\x00"
    assert plain("evil\u202egnp.exe\u2066") == "evil\\u202egnp.exe\\u2066"
    assert plain("not UTF-8: \udcff") == "not UTF-8: \\xff"
    assert plain("\U0001f468\u200d\U0001f469") == "\U0001f468\u200d\U0001f469"
    shown = console(force_terminal=True)
    shown.print("a\x1b[31mb\x07\nc", style="dim")
    assert "\x1b[31m" not in shown.file.getvalue()
    assert "a\\x1b[31mb\\x07" in shown.file.getvalue()
