"""Every kind of damage to every kind of file: it is seen, and the next run ends in the right bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from dmp_core.store.workspace import README
from dmp_core.text import has_text
from tests.chaos.arena import Arena, Tally, complain


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


KINDS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "one bit": _flip,
    "cut short": lambda data, rng: data[: rng.randrange(len(data))],
    "empty": lambda data, rng: b"",
    "zeros": lambda data, rng: bytes(len(data)),
    "gone": lambda data, rng: None,
}


def damages(arena: Arena, sample: int | None = None, seed: int = 0) -> Tally:
    """One file of each kind, in each way. sample: only this number of them."""
    rng, tally = random.Random(seed), Tally("damaged files")
    arena.fresh("end")
    cases = [(file, kind) for file in _one_of_each(arena.workspace) for kind in KINDS]
    for file, kind in cases if sample is None else rng.sample(cases, sample):
        what = f"{file}: {kind}"
        arena.fresh("end")
        data = (arena.workspace / file).read_bytes()
        changed = KINDS[kind](data, rng)
        if changed == data:
            continue
        if changed is None:
            (arena.workspace / file).unlink()
        else:
            (arena.workspace / file).write_bytes(changed)
        tally.tried += 1
        right = arena.right
        if file.name == README and changed is not None and has_text(changed.decode(errors="replace")):
            right = right | {file.as_posix(): changed}  # as if somebody had edited it
        arena.warm.start("verify", str(arena.workspace), "--repair")
        complain(tally, what, arena.warm.end(arena.workspace, arena.patience), (0, 2))
        arena.finish(tally, what, "run", right=right, inline=True)
    return tally


def _one_of_each(workspace: Path) -> list[Path]:
    """One file per stage and name, shards counted as one, of all that is published."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(workspace.rglob("*")):
        file = path.relative_to(workspace)
        if path.is_file() and not file.parts[0].startswith(".") and path.stat().st_size:
            found.setdefault((file.parts[0], re.sub(r"\d+", "", path.name)), file)
    return list(found.values())
