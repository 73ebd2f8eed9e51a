"""`dmp` without the seconds that imports take: a process that has everything imported forks one run after another.

Prefect cannot be found in it, so that stages run in turn. As a program it reads a request per line, a JSON object with
`arguments`, `log`, `fault` and `inline`, and answers with the process id, then with the exit code.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from dmp_core.keywords.meaning import meaning_of
from dmp_core.stages.registry import STAGES
from tests import faults
from tests.chaos.drills import LIMIT, ROOT, Ended, temporary

KILL = -int(signal.SIGKILL)
"""As a fault's errno: the group is killed at that write instead."""


class Warm:
    """One such process, and the run that it started last; each run has its own session."""

    def __init__(self, workspace: Path, library: Path | None) -> None:
        """workspace: below it writes are counted, by the library of `tests.faults` if there is one."""
        counted = faults.environment(library, workspace) if library else {}
        self.log = workspace.with_name(f"log-{id(self)}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.warm"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OPENBLAS_NUM_THREADS": "1", **counted},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # `select` does not see buffered data
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert self._answer(600) == "ready"
        self.pid = 0
        self.begun = 0.0

    def start(self, *arguments: str, fault: tuple[int, int, bool] | None = None, inline: bool = False) -> None:
        """fault: as for `tests.faults`.

        inline: render in the same process, and end without freeing what was imported; saves seconds per stage.
        """
        request = {"arguments": arguments, "log": str(self.log), "fault": fault, "inline": inline}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.pid, self.begun = int(self._answer(60)), time.monotonic()

    def signal(self, number: int, *, group: bool = True) -> None:
        self.begun = time.monotonic()
        (os.killpg if group else os.kill)(self.pid, number)

    def end(self, workspace: Path, patience: float) -> Ended | None:
        """How it ended, with the seconds since its start or the last signal; None if it hung, and was killed."""
        code = self._answer(patience)
        seconds = time.monotonic() - self.begun
        if not code:
            os.killpg(self.pid, signal.SIGKILL)
            self._answer(60)
            return None
        until = time.monotonic() + LIMIT
        while (alive := in_session(self.pid)) and time.monotonic() < until:
            time.sleep(0.05)
        out, err = (Path(f"{self.log}.{name}").read_text(errors="replace") for name in ("out", "err"))
        return Ended(int(code), seconds, out, err, alive, temporary(workspace))

    def writes(self) -> int:
        """Number of writes of the run that has just ended by itself."""
        return int(Path(f"{self.log}.writes").read_text())

    def over(self) -> bool:
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def _answer(self, patience: float) -> str:
        """Empty if none comes in time."""
        if not select.select([self.process.stdout], [], [], patience)[0]:
            return ""
        return self.process.stdout.readline().decode().strip()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def in_session(leader: int) -> list[str]:
    """Command lines of the processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(words[3]) == leader and words[0] not in "ZX":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        except OSError:
            continue
    return found


# ------------------------------------------------------------------------------- the process
class _NoPrefect:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "prefect":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _import_all() -> None:
    """Import everything except the renderer, whose threads do not survive a fork."""
    for name in ("torch", "peft", "matplotlib.pyplot", "pyarrow.parquet", "webdataset", "torchmetrics"):
        importlib.import_module(name)
    for name in (
        "cli.commands",
        "methods.dmp.finetune",
        "methods.dmp.predict",
        "report.build",
        "report.plots",
    ):
        importlib.import_module(f"dmp_core.{name}")
    for name in STAGES:
        importlib.import_module(f"dmp_core.stages.{name}")
    meaning_of("bedroom")  # parses and caches the vocabulary


def _answer(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _serve() -> dict[str, Any] | None:
    """In the first process None, at its end; in each that it forks, the request."""
    _answer("ready")
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        _answer(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _answer(code)
    return None


@contextmanager
def _no_processes(workers: int, prepare: Callable[[], object]) -> Iterator[Any]:
    prepare()
    yield SimpleNamespace(map=map)


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['log']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.argv = ["dmp", *request["arguments"]]
    if request["inline"]:
        from dmp_core.synthesis import rendered

        rendered.worker_pool = _no_processes
    if request["fault"]:
        counted = faults.Faults()
        atexit.register(lambda: Path(f"{request['log']}.writes").write_text(str(counted.disarm())))
        counted.arm(*request["fault"])


def _end_at_once(main: Callable[[], None]) -> NoReturn:
    """Freeing and collecting what was imported takes seconds, of which nothing is seen outside."""
    gc.freeze()
    try:
        main()
        code: Any = 0
    except SystemExit as end:
        code = end.code
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    sys.meta_path.insert(0, _NoPrefect())
    _import_all()
    request = _serve()
    if request is not None:
        from dmp_core.cli import main

        _become(request)
        if request["inline"]:
            _end_at_once(main)
        main()
