"""One maker at a time: a file in the workspace says who is making what, so that runs may share a workspace.

The file is created only if it is not there (`O_EXCL`; `If-None-Match` on S3) and rewritten every few seconds while
its holder lives. A lock is abandoned when its process is gone, if that can be seen from here, or when its content
has not changed for `STALE` seconds by the clock of whoever waits; clocks of other machines do not matter.

A lock spares double work; it does not carry correctness. Files are published whole and their bytes are a function of
the fingerprint, so two holders (one was taken for dead and was not) write the same bytes twice.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

from dmp_core.store.workspace import Workspace

BEAT = 10.0
"""Seconds between two rewrites by the holder."""
STALE = 90.0
"""Seconds without a rewrite after which a lock counts as abandoned."""
POLL = 0.5
"""Seconds between two looks at a lock that somebody else holds."""

_log = logging.getLogger(__name__)


class LockLost(OSError):
    """Another run took the lock over, since this one was silent for too long (a paused machine, a lost network)."""


class Lock:
    """The right to make one thing; as a context manager it gives back what `acquire` or `wait` took.

    It does so even if a signal ends the process in the middle of taking it or of giving it back.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.name = name
        self.path = f"{workspace.root}/.locks/{name.replace('/', '-')}.lock"
        self.token = uuid.uuid4().hex
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()  # an Event would deadlock if interrupted
        self._creating = False
        self._writing = threading.Lock()
        self._seen: tuple[bytes | None, float] = (None, 0.0)

    # ------------------------------------------------------------------------------ taking
    def acquire(self) -> bool:
        """Take the lock if it is free or abandoned; False if somebody holds it."""
        content = self._read()
        if content is not None and self._abandoned(content):
            _log.warning("%s: taken over from %s, which has ended", self.name, _holder(content))
            self._remove(content)
            content = None
        if content is not None or not self._create():
            return False
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def wait(self, tell: Callable[[str], None] = lambda holder: None) -> None:
        """Block until the lock is taken; `tell` hears once who holds it."""
        told = False
        while not self.acquire():
            if not told and (content := self._read()) is not None:
                tell(_holder(content))
                told = True
            time.sleep(POLL)

    def check(self) -> None:
        """Raise LockLost unless the lock is still ours; to be called before something is published."""
        if not self._is_ours():
            raise LockLost(f"{self.name}: another run took over while this one was silent; rerun to go on from there")

    def release(self) -> None:
        self._ended.put(None)
        with self._writing:
            if self._is_ours() or (self._creating and self._read() == b""):
                with suppress(FileNotFoundError):
                    self.workspace.fs.rm_file(self.path)
        atexit.unregister(self.release)

    def __enter__(self) -> Lock:
        atexit.register(self.release)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    # ---------------------------------------------------------------------------- the file
    def _content(self, beat: int = 0) -> bytes:
        machine, pid = _machine(), os.getpid()
        holder = {"host": socket.gethostname(), "machine": machine, "pid": pid, "started": _started(pid)}
        return json.dumps({"token": self.token, "beat": beat, **holder}).encode()

    def _read(self) -> bytes | None:
        try:
            return bytes(self.workspace.fs.cat_file(self.path))
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        content = self._read()
        return content is not None and self.token.encode() in content

    def _create(self) -> bool:
        try:
            if self.workspace.is_local:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                content, self._creating = self._content(), True
                with open(self.path, "xb") as stream:
                    stream.write(content)
            else:
                self.workspace.fs.pipe_file(self.path, self._content(), mode="create")
        except OSError:
            if self._read() is None:
                raise
            self._creating = False
            return False
        self._creating = False
        return True

    def _remove(self, content: bytes) -> None:
        """Remove the file if it still holds that; of two who try, one succeeds."""
        if not self.workspace.is_local:
            if self._read() == content:
                with suppress(FileNotFoundError):
                    self.workspace.fs.rm_file(self.path)
            return
        aside = f"{self.path}.{self.token}"
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
            if Path(aside).read_bytes() != content:
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            os.unlink(aside)

    def _beat(self) -> None:
        for beat in itertools.count(1):
            with suppress(queue.Empty):
                return self._ended.get(timeout=BEAT)
            try:
                with self._writing:
                    if not self._ended.empty() or not self._is_ours():
                        return None
                    self._rewrite(self._content(beat))
            except Exception as error:  # of whatever kind the storage raises: the next beat may get through
                _log.warning("%s: its lock could not be renewed (%s)", self.name, error)

    def _rewrite(self, content: bytes) -> None:
        if self.workspace.is_local:
            aside = f"{self.path}.{self.token}"
            Path(aside).write_bytes(content)
            os.replace(aside, self.path)
        else:
            self.workspace.fs.pipe_file(self.path, content)

    # -------------------------------------------------------------------------- its holder
    def _abandoned(self, content: bytes) -> bool:
        if content != self._seen[0]:
            self._seen = (content, time.monotonic())
        return _has_ended(content) or time.monotonic() - self._seen[1] > STALE


def _parsed(content: bytes) -> dict[str, object]:
    """Empty while the file is being written."""
    try:
        return dict(json.loads(content))
    except ValueError:
        return {}


def _holder(content: bytes) -> str:
    holder = _parsed(content)
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"


def _has_ended(content: bytes) -> bool:
    """Whether the holder ran on this machine and does so no more; False if that cannot be told."""
    holder = _parsed(content)
    if not _machine() or holder.get("machine") != _machine():
        return False
    return _started(int(str(holder["pid"]))) != holder["started"]


@cache
def _machine() -> str:
    """Names this boot of this machine, and the container that process ids are counted in; empty if unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, which tells it from a later one with its number; None if there is none (any more)."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]
