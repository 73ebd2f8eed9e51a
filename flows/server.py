"""The temporary server that a run starts if none is set up; it survives signals and ends with its run.

Prefect's own temporary server is a child in the run's process group: Ctrl-C ends it first, and the run then calls it
for minutes; after `kill -9` it stays for ever. As a program, this module is the server: server.py PORT PARENT
"""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_HOME, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, get_current_settings

from dmp_core.errors import InputError, RunError

_ATTEMPTS = 3
"""Number of ports to try: another program may take one between check and start."""
_BETWEEN_LOOKS = 0.5


@cache
def temporary_server() -> str:
    """The API's URL of the server of this process, which is started at the first call.

    Prefect is given this URL as a setting: its own class for a server imports all of the server into this process.

    Raises InputError if PREFECT_HOME is not writable, RunError if no server starts.
    """
    _check_home()
    return _TemporaryServer().start(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())


class _TemporaryServer:
    def __init__(self) -> None:
        self.process: subprocess.Popen[Any] | None = None

    def start(self, seconds: float) -> str:
        atexit.register(self.stop)
        with tempfile.TemporaryFile() as log:
            for _ in range(_ATTEMPTS):
                port = _free_port()
                self.process = self._spawn(port, log)
                url = f"http://127.0.0.1:{port}/api"
                if self._answers(url, seconds):
                    return url
                self.stop()
            log.seek(0)
            *_, last = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
        raise RunError(f"Prefect's temporary server did not start ({last}); see PREFECT_HOME, {PREFECT_HOME.value()}")

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _spawn(self, port: int, log: Any) -> subprocess.Popen[Any]:
        environment = {
            **os.environ,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            **get_current_settings().to_environment_variables(exclude_unset=True),
        }
        # -P: this file's folder contains modules with common names.
        command = [sys.executable, "-P", __file__, str(port), str(os.getpid())]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _answers(self, url: str, seconds: float) -> bool:
        """Wait until the server answers; False if it has ended, or takes longer."""
        until = time.monotonic() + seconds
        here = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self.process and self.process.poll() is None and time.monotonic() < until:
            with suppress(OSError), here.open(f"{url}/health", timeout=5):
                return True
            time.sleep(0.1)
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _check_home() -> None:
    home = Path(PREFECT_HOME.value())
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise InputError(
            f"PREFECT_HOME {home}: {error.strerror}; Prefect keeps its record of runs there: make it writable, or set "
            "PREFECT_HOME to another folder"
        ) from None


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3 * _BETWEEN_LOOKS)
    os._exit(1)


def _serve(port: int, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # As a program, since uvicorn is Prefect's dependency, not ours.
    options = ["--factory", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    sys.argv = ["uvicorn", "prefect.server.api.server:create_app", *options]
    runpy.run_module("uvicorn", run_name="__main__")


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
