"""Ctrl-C, SIGTERM and a closed terminal: the command unwinds; if that takes too long, the process ends anyway.

Usually an exception in the main thread ends the command. That is not reliable: in a destructor or a callback it is
swallowed, and unwinding may wait for a lock, a server or a library for ever. So a thread watches. A run that is killed
at any moment loses nothing that it has published, so ending without unwinding is safe too.
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
SHUTDOWN = 60
"""Seconds after which the system ends an interpreter whose shutdown hangs."""
ONE_PRESS = 0.5
"""Seconds within which a second SIGINT is the same Ctrl-C, passed on by the process that started this one."""
_AGAIN = b"\0"
"""Message to the watching thread: no signal has this number."""
_MOMENT = 0.02
"""Seconds that a destructor gets to return."""
_NOTED = 1.0
"""Seconds within which the watching thread has noted a signal that another handler has raised for."""
LINE = "interrupted; run the same command again to resume"


class Interrupts:
    """Interrupts of one process; create it in the main thread. `code`: exit code after a signal, 0 before."""

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
        self._thread_before = threading.excepthook

    def install(self) -> None:
        """Install the handlers. Ignored signals stay ignored, as in jobs started with nohup or in the background."""
        atexit.register(self._end)  # the first registered is called last
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._unwind)
        # Python's own handlers wait for the main thread, which may be busy; this descriptor is written immediately.
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        sys.unraisablehook = self._not_raised
        threading.excepthook = self._in_a_thread
        threading.Thread(target=self._watch, daemon=True).start()

    def print_line(self) -> None:
        """Print the line once, without the streams' locks, which the interrupted code may hold."""
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
        if not self._raised:  # during unwinding, another exception would skip clean-up code
            self._raised = True
            raise Interrupted(128 + number)

    def _not_raised(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise an interrupt that a destructor or a callback swallowed again, once the main thread continues.

        An error after a signal is its consequence, such as a pipe closed at its other end.
        """
        if not self._has_come(lost.exc_type):
            self._before(lost)
        elif not issubclass(lost.exc_type, Exception):
            with suppress(OSError):
                self._wake.send(_AGAIN)  # not from here, where it would be swallowed as well

    def _has_come(self, kind: type[BaseException] | None) -> bool:
        """Whether a signal has. Prefect's handlers raise without noting it, a moment before the thread that watches."""
        until = time.monotonic() + _NOTED
        other = kind is not None and not issubclass(kind, (Exception, SystemExit, GeneratorExit))
        while other and not self.code and time.monotonic() < until:
            time.sleep(_MOMENT)
        return bool(self.code)

    def _in_a_thread(self, lost: threading.ExceptHookArgs) -> None:
        if not self.code:
            self._thread_before(lost)

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
                    # As if the group had received it. The server is in its own group: the run still reports to it.
                    signal_all(_same_session(descendants(os.getpid())), signal.SIGTERM)
                    passed_on = True
                    logging.disable()  # all later failures have this cause
                elif number == signal.SIGINT and time.monotonic() - self._first > ONE_PRESS:
                    self._end_now()

    def _end_now(self) -> None:
        signal_all(descendants(os.getpid()), signal.SIGKILL)
        self.print_line()
        end_now(self.code)

    def _end(self) -> None:
        """After an interrupt, skip the interpreter's own shutdown: it may hang where no thread can watch it.

        After any other end the work is done, and a signal from now on is too late: the shutdown takes up to a second,
        in which Python no longer calls handlers, and the exit code would be the signal's.
        """
        if self.code:
            signal_all(descendants(os.getpid()), signal.SIGKILL)
            self.print_line()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.code)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(SHUTDOWN)

    def __enter__(self) -> Interrupts:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After a signal, the block's end counts as caused by it."""
        if self._has_come(kind):
            self.print_line()
            sys.exit(self.code)


def _same_session(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            if os.getsid(pid) == os.getsid(0):
                found.append(pid)
    return found
