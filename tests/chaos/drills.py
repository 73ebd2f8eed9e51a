"""Shared by drills: start `dmp` as a terminal does, disturb it, and check what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from dmp_core.config import load_config
from tests.timed import TIMED

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 10.0
"""Seconds from SIGINT or SIGTERM within which a command must have ended."""
LINE = "interrupted; run the same command again to resume"
_MARK = "DMP_DRILL"
_TEMPORARY = ("*.tmp", "*.part", "*.tmp.npz", ".writing-*", "*.lock", "*.lock.*")


@dataclass
class Ended:
    """Exit of a run, and what it left."""

    code: int
    seconds: float
    """From the signal to the end."""
    out: str
    err: str
    alive: list[str]
    """Command lines of its processes that still exist."""
    temporary: list[str]


class Run:
    """A command in its own session, so that its group gets a terminal's signals; all processes it starts are known."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.log = folder.with_name(f"{folder.name}-{self.mark[:8]}")
        with open(f"{self.log}.out", "wb") as out, open(f"{self.log}.err", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dmp_core.cli", *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", _MARK: self.mark} | environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
                # A shell that starts this in the background, as `make` may be, has SIGINT ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def until(self, reached: Callable[[], object], patience: float = 300.0) -> None:
        """Wait until something is reached; an end before that is an error."""
        limit = time.monotonic() + patience
        while not reached():
            assert self.process.poll() is None, self.text("err") or self.text("out")
            assert time.monotonic() < limit, f"not reached; {self.text('out')}"
            time.sleep(0.02)

    def at_work(self, stage: str) -> Callable[[], object]:
        """Whether a stage is making something now: it holds a lock then."""
        return lambda: any(self.folder.glob(f".locks/{stage}-*.lock"))

    def signal(self, number: int, *, group: bool) -> Ended:
        """Send a signal to the process or to its group, and wait for the end."""
        begun = time.monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.end(begun)

    def end(self, begun: float | None = None, patience: float = 300.0) -> Ended:
        begun = time.monotonic() if begun is None else begun
        code = self.process.wait(timeout=patience)
        seconds = time.monotonic() - begun
        return Ended(code, seconds, self.text("out"), self.text("err"), self.alive(), temporary(self.folder))

    def text(self, stream: str) -> str:
        return Path(f"{self.log}.{stream}").read_text(errors="replace")

    def alive(self) -> list[str]:
        """Command lines of processes of the run that still exist; every child inherits its mark."""
        found, mark = [], f"{_MARK}={self.mark}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        return found

    def has_ended(self, patience: float) -> bool:
        """Whether all of its processes end within that many seconds."""
        until = time.monotonic() + patience
        while self.alive() and time.monotonic() < until:
            time.sleep(0.1)
        return not self.alive()


def write_config(file: Path) -> Path:
    """The smoke preset with one task and two splits: every stage, in seconds."""
    config = load_config("smoke", None, ["modalities=[normal]", "runtime.workers=1", "runtime.device=cpu"])
    values = config.model_dump(mode="json") | {"extends": None}
    values["splits"] = {name: values["splits"][name] for name in ("train", "in_domain")}
    file.write_text(yaml.safe_dump(values))
    return file


def temporary(folder: Path) -> list[str]:
    """Temporary files and locks below a folder."""
    return sorted({str(path.relative_to(folder)) for pattern in _TEMPORARY for path in folder.rglob(pattern)})


def contents(workspace: Path) -> dict[str, bytes]:
    """Bytes by path of the files that a run publishes, without those that contain times."""
    return {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file()
        and path.name not in TIMED
        and "tfevents" not in path.name
        and not {".scratch", ".locks"} & set(path.parts)
    }
