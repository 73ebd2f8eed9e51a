"""A Prefect server and workers on loopback, with their own home, for tests that deploy, run and kill."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

ROOT = Path(__file__).resolve().parents[2]
MARK = "DMP_TEST_NODE"
PATIENCE = 900.0
LOST_AFTER = 90
"""The automation's limit, of `make deploy`."""
POLL = "5"
"""Seconds between two polls of a worker: one gives up after its twelfth failed poll, the last of which are rarer."""
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """The result of `look`, called twice per second, so that no test depends on the machine's speed."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {patience:.0f} s in vain: {what}")


class Orchestra:
    """The server, and workers by the name of the machine that each of them plays."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.nodes: set[str] = set()
        self.env = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite on a busy machine: "database is locked"
            "PREFECT_CLIENT_MAX_RETRIES": "10",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
        }

    def start(self) -> None:
        """Start the server, or start it again with the same address and database."""
        self._spawn("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_for("the server", self._healthy)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def worker(self, pool: str, node: str) -> None:
        """A worker on the machine `node`; it polls often and holds one run at a time."""
        self._spawn(node, "worker", "start", "--pool", pool, "--type", "process", "--name", node, "--limit", "1")

    def _spawn(self, node: str, *arguments: str) -> None:
        self.nodes.add(node)
        with (self.home / f"{node}.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=self.home,
                env={**self.env, MARK: self._mark(node), "PREFECT_WORKER_QUERY_SECONDS": POLL},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def command(self, *arguments: str) -> str:
        """Standard output of a command of the checkout, with this server's address."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def log(self, node: str) -> str:
        """All output of a machine so far."""
        return (self.home / f"{node}.log").read_text()

    # ------------------------------------------------------------------------------- processes
    def processes(self, node: str) -> dict[int, str]:
        """Command lines, by process id, of all that runs on a machine; its mark is inherited by every child."""
        found, mark = {}, f"{MARK}={self._mark(node)}\0".encode()
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def _mark(self, node: str) -> str:
        """With the home, since another orchestra's machines may have the same names."""
        return f"{self.home}:{node}"

    def kill(self, node: str, *, flows_only: bool = False, by: int = signal.SIGKILL) -> int:
        """End a machine's processes with a signal, or only those of its flow runs; returns how many."""
        killed = 0
        for pid, command in self.processes(node).items():
            if not (flows_only and "worker start" in command):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, by)
                    killed += 1
        return killed

    # ------------------------------------------------------------------------------------ runs
    def submit(self, deployment: str, **parameters: Any) -> UUID:
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def read(self, run_id: UUID) -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run_id)

    def end(self, run_id: UUID, patience: float = PATIENCE) -> FlowRun:
        """The run once it is final."""

        def final() -> FlowRun | None:
            run = self.read(run_id)
            return run if run.state and run.state.is_final() else None

        return wait_for(f"the end of {run_id}; logs in {self.home}", final, patience)

    def child(self, parent: UUID, flow_name: str) -> FlowRun:
        """The running child run of a flow, once its process does something."""

        def running() -> FlowRun | None:
            with get_client(sync_client=True) as client:
                is_ours = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
                runs = client.read_flow_runs(flow_run_filter=is_ours)
                return next((run for run in runs if run.name.startswith(flow_name) and run.state.is_running()), None)

        return wait_for(f"a running {flow_name}", running)


@contextmanager
def orchestra(home: Path, pools: tuple[str, ...] = ("cpu", "gpu")) -> Iterator[Orchestra]:
    """Started, deployed, with one worker for each of these pools; everything is killed at the end."""
    made = Orchestra(home)
    try:
        made.start()
        made.command("flows.deploy", "--lost-after", str(LOST_AFTER))
        for pool in pools:
            made.worker(pool, f"{pool}-node")
        with temporary_settings({PREFECT_API_URL: made.url}):
            yield made
    finally:
        for node in sorted(made.nodes):
            made.kill(node)
