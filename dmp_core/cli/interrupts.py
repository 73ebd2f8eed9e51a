"""Ctrl-C, SIGTERM and a closed terminal: the command unwinds, and if that takes too long, ends all the same.

An exception in the main thread is the usual way out. It is not a sure one: raised in a destructor or a callback it is
swallowed, and unwinding may wait for a lock, a server or a library for ever. So a thread watches. Killed at any
moment, a run loses nothing that it has published, so that an end without unwinding is safe as well.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType

from dmp_core.processes import Interrupted, descendants, end_now, signal_all

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNWINDING = 5.0
"""Seconds from the signal until the process ends without unwinding."""
ONE_PRESS = 0.5
"""Seconds within which a second SIGINT is the same Ctrl-C, passed on by whatever started this process."""
_AGAIN = b"\0"
"""To the watching thread: no signal has this number."""
_MOMENT = 0.02
"""Seconds for a destructor to return in."""
LINE = "interrupted; run the same command again to resume"


class Interrupts:
    """Of one process, to be made in its main thread; `code` is its exit code once a signal has come, 0 before."""

    def __init__(self, line: str = LINE) -> None:
        self.code = 0
        self.line = line
        self._main = threading.get_ident()
        self._first = 0.0
        self._raised = False
        self._said = False
        self._heard, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._before = sys.unraisablehook

    def install(self) -> None:
        """A signal that is ignored, as in a job that a shell started with nohup or in the background, stays so."""
        atexit.register(self._end)  # the first that is registered is the last to be called
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._unwind)
        # Python's own handlers wait for the main thread, which may be busy; this descriptor is written at once.
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        sys.unraisablehook = self._not_raised
        threading.Thread(target=self._watch, daemon=True).start()

    def say(self) -> None:
        """Once, and without the streams' locks, which whatever was interrupted may hold."""
        if self._said:
            return
        self._said = True
        cursor = b"\x1b[?25h" if os.isatty(2) else b""  # progress bars hide it
        with suppress(OSError):
            os.write(2, cursor + self.line.encode() + b"\n")

    def _note(self, number: int) -> None:
        if not self.code:
            self._first, self.code = time.monotonic(), 128 + number

    def _unwind(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        if not self._raised:  # while it unwinds already, another exception would skip what is to be cleaned up
            self._raised = True
            raise Interrupted(128 + number)

    def _not_raised(self, lost: sys.UnraisableHookArgs) -> None:
        """An exception that a destructor or a callback had to swallow: again, as soon as the main thread goes on."""
        if not self.code or issubclass(lost.exc_type, Exception):
            self._before(lost)
            return
        with suppress(OSError):
            self._wake.send(_AGAIN)  # not from here, where it would be swallowed as well

    def _watch(self) -> None:
        passed_on = False
        while True:
            seconds = max(0.0, self._first + UNWINDING - time.monotonic()) if passed_on else None
            if not select.select([self._heard], [], [], seconds)[0]:
                self._end_now()
            for number in self._heard.recv(64):
                if number == _AGAIN[0]:
                    time.sleep(_MOMENT)
                    self._raised = False
                    signal.pthread_kill(self._main, signal.SIGTERM)
                if number not in SIGNALS:
                    continue
                self._note(number)
                if not passed_on:
                    # As if the group had got it. The server is in a group of its own: the run still reports to it.
                    signal_all(_same_session(descendants(os.getpid())), signal.SIGTERM)
                    passed_on = True
                    logging.disable()  # whatever fails from now on fails for this reason
                elif number == signal.SIGINT and time.monotonic() - self._first > ONE_PRESS:
                    self._end_now()

    def _end_now(self) -> None:
        signal_all(descendants(os.getpid()), signal.SIGKILL)
        self.say()
        end_now(self.code)

    def _end(self) -> None:
        """After an interrupt the interpreter's own end is skipped: it may hang where no thread can watch it."""
        if self.code:
            signal_all(descendants(os.getpid()), signal.SIGKILL)
            self.say()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.code)

    def __enter__(self) -> Interrupts:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Once a signal has come, whatever ended the block ended it for that reason."""
        if self.code:
            self.say()
            sys.exit(self.code)


def _same_session(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            if os.getsid(pid) == os.getsid(0):
                found.append(pid)
    return found
