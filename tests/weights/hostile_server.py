"""A loopback server that answers as a script says: bot walls, pages, short bodies, wrong ranges, drips, resets."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = Callable[["Request"], None]
"""Sends one response."""


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HostileServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        script = self.server.script[self.path]
        (script.pop(0) if len(script) > 1 else script[0])(self)

    @property
    def start(self) -> int:
        """First byte of the range that is asked for; 0 without one."""
        asked = self.headers.get("Range")
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0

    def head(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def partial(self, body: bytes, total: int | None = None, **headers: str) -> bytes:
        """The head of the whole body or of the range that is asked for; returns what is still to be sent."""
        total = len(body) if total is None else total
        if self.start:
            headers["Content_Range"] = f"bytes {self.start}-{total - 1}/{total}"
        self.head(206 if self.start else 200, total - self.start, **headers)
        return body[self.start :]

    def log_message(self, *args: object) -> None:
        pass


class HostileServer(ThreadingHTTPServer):
    """script: path → answers in turn; the last one repeats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.script: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *args: object) -> None:
        """Clients hang up on drips."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def whole(body: bytes, **headers: str) -> Answer:
    def answer(request: Request) -> None:
        request.wfile.write(request.partial(body, **headers))

    return answer


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """A body of that status, whatever range is asked for."""

    def answer(request: Request) -> None:
        request.head(code, len(body), **headers)
        request.wfile.write(body)

    return answer


def short(body: bytes, sent: int) -> Answer:
    """Promises the whole body and ends the connection after some bytes."""

    def answer(request: Request) -> None:
        request.wfile.write(request.partial(body)[:sent])
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True

    return answer


def reset(body: bytes, sent: int) -> Answer:
    """As `short`, but with a TCP reset."""

    def answer(request: Request) -> None:
        request.wfile.write(request.partial(body)[:sent])
        request.wfile.flush()
        time.sleep(0.05)  # else the bytes before the reset are lost
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
        request.close_connection = True

    return answer


def drip(body: bytes, pause: float, size: int = 1) -> Answer:
    def answer(request: Request) -> None:
        rest = request.partial(body)
        for start in range(0, len(rest), size):
            request.wfile.write(rest[start : start + size])
            request.wfile.flush()
            time.sleep(pause)

    return answer
