"""Locks: a file in the workspace records which process makes what, so that runs may share a workspace.

The file is created only if it does not exist (`O_EXCL`; `If-None-Match` on S3) and rewritten every few seconds while
its holder lives. A lock is abandoned when its process has ended, if this machine can see that, or when its content
has not changed for `STALE` seconds by the clock of the waiting process; clocks of other machines do not matter.

A lock avoids double work; correctness does not depend on it. Files are published atomically and their bytes are a
function of the fingerprint, so two holders (one was wrongly presumed dead) write the same bytes twice.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ValidationError

from dmp_core.store.files import create_file, write_file
from dmp_core.store.files import machine as _machine
from dmp_core.store.folders import age_of, names_in
from dmp_core.store.workspace import Workspace

BEAT = 10.0
"""Seconds between two rewrites by the holder."""
STALE = 90.0
"""Seconds without a rewrite after which a lock counts as abandoned."""
POLL = 0.5
"""Seconds between two checks of a lock that another process holds."""

_log = logging.getLogger(__name__)


class LockLost(OSError):
    """Another run took over the lock, since this one was silent for too long (a paused machine, a lost network)."""


class Holder(BaseModel):
    """Content of a lock's file."""

    token: str
    beat: int
    host: str
    machine: str
    pid: int
    started: str | None


@dataclass(frozen=True)
class Held:
    """A lock's file, as it was found."""

    name: str
    holder: str
    silent: float
    """Seconds since its holder last rewrote it, by this machine's clock."""
    alive: bool
    """False if the holder has ended, or has been silent for too long."""


def locks_in(workspace: Workspace) -> list[Held]:
    """All locks of a workspace, by name."""
    found = []
    for lock, content in _locks(workspace):
        with suppress(FileNotFoundError):  # released meanwhile
            silent = age_of(workspace.fs.info(lock.path))
            alive = silent <= STALE and not _has_ended(content)
            found.append(Held(lock.name, _describe(content), silent, alive))
    return found


def release_ended(workspace: Workspace) -> None:
    """Remove the locks of processes that have ended on this machine: those killed after their work was complete, which
    nobody makes again, and so nobody would take over."""
    for lock, content in _locks(workspace):
        if _has_ended(content):
            lock._remove(content)


def _locks(workspace: Workspace) -> Iterator[tuple[Lock, bytes]]:
    """All locks that are held, with the contents of their files."""
    for name in names_in(workspace.fs, f"{workspace.root}/.locks"):
        if name.endswith(".lock"):
            lock = Lock(workspace, name.removesuffix(".lock"))
            if (content := lock._read()) is not None:
                yield lock, content


class Lock:
    """The right to make one thing; as a context manager it releases what `acquire` or `wait` acquired.

    It does so even if a signal ends the process while it acquires or releases. A waiting process must use one Lock for
    all its checks, since the holder's silence is counted from the first of them.
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
        """Acquire the lock if it is free or abandoned; False if another process holds it."""
        content = self._read()
        if content is not None and self._abandoned(content):
            reason = "has ended" if _has_ended(content) else f"was silent for {STALE:.0f} s"
            _log.warning("%s: lock taken over from %s, which %s", self.name, _describe(content), reason)
            self._remove(content)
            content = None
        if content is not None:
            return False
        ended = self._ended = queue.SimpleQueue()
        if not self._create():
            return False
        threading.Thread(target=self._beat, args=[ended], daemon=True).start()
        return True

    def wait(self, on_wait: Callable[[str], None] = lambda holder: None) -> None:
        """Block until the lock is acquired; calls `on_wait(holder)` once if another process holds it."""
        reported = False
        while not self.acquire():
            if not reported and (holder := self.holder()) is not None:
                on_wait(holder)
                reported = True
            time.sleep(POLL)

    def is_alive(self) -> bool:
        """Whether another process holds it that has neither ended nor been silent for too long."""
        content = self._read()
        return content is not None and not self._abandoned(content)

    def holder(self) -> str | None:
        """A description of the holder for messages; None if the lock is free."""
        content = self._read()
        return None if content is None else _describe(content)

    def check(self) -> None:
        """Raise LockLost unless the lock is still ours; call it before publishing."""
        if not self._is_ours():
            raise LockLost(f"{self.name}: another run took over while this one was silent; rerun to resume")

    def release(self) -> None:
        self._ended.put(None)
        try:
            with self._writing:
                if self._is_ours() or (self._creating and self._read() == b""):
                    self.workspace.fs.rm_file(self.path)
        except FileNotFoundError:
            pass  # another process took it over as abandoned
        except OSError as error:  # the work itself is finished, or has failed with its own error
            _log.warning("%s: its lock could not be removed (%s)", self.name, error)
        self._creating = False
        atexit.unregister(self.release)  # not if a signal arrived meanwhile: then the process's end tries again

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
        holder = Holder(
            token=self.token, beat=beat, host=socket.gethostname(), machine=machine, pid=pid, started=_started(pid)
        )
        return holder.model_dump_json().encode()

    def _read(self) -> bytes | None:
        try:
            return bytes(self.workspace.fs.cat_file(self.path))
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        content = self._read()
        return content is not None and self.token.encode() in content

    def _create(self) -> bool:
        content, self._creating = self._content(), True
        try:
            if self.workspace.is_local:
                create_file(Path(self.path), content)
            else:
                self.workspace.fs.pipe_file(self.path, content, mode="create")
        except FileExistsError:
            self._creating = False
            return False
        except OSError:
            if self.workspace.is_local or (found := self._read()) is None:
                raise
            self._creating = False  # each store has its own error; and a response may be lost, but not the request
            return self.token.encode() in found
        self._creating = False
        return True

    def _remove(self, content: bytes) -> None:
        """Remove the file if it still has this content; if two processes try, one succeeds."""
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

    def _beat(self, ended: queue.SimpleQueue[None]) -> None:
        for beat in itertools.count(1):
            with suppress(queue.Empty):
                return ended.get(timeout=BEAT)
            try:
                with self._writing:
                    if not ended.empty() or not self._is_ours():
                        return None
                    self._rewrite(self._content(beat))
            except Exception as error:  # whatever the storage raises: the next beat may succeed
                _log.warning("%s: its lock could not be renewed (%s)", self.name, error)

    def _rewrite(self, content: bytes) -> None:
        if self.workspace.is_local:
            write_file(Path(self.path), content, sync=False)
        else:
            self.workspace.fs.pipe_file(self.path, content)

    # -------------------------------------------------------------------------- its holder
    def _abandoned(self, content: bytes) -> bool:
        if content != self._seen[0]:
            self._seen = (content, time.monotonic())
        return _has_ended(content) or time.monotonic() - self._seen[1] > STALE


def _parsed(content: bytes) -> Holder | None:
    """None if the lock is being written, or damaged."""
    try:
        return Holder.model_validate_json(content)
    except ValidationError:
        return None


def _describe(content: bytes) -> str:
    holder = _parsed(content)
    return f"process {holder.pid} on {holder.host}" if holder else "an unknown process (its lock cannot be read)"


def _has_ended(content: bytes) -> bool:
    """Whether the holder ran on this machine and has ended; False if unknown."""
    holder = _parsed(content)
    if holder is None or not _machine() or holder.machine != _machine():
        return False
    return _started(holder.pid) != holder.started


def _started(pid: int) -> str | None:
    """Start time of a process, to distinguish it from a later one with its number; None if it does not exist."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]
