"""The part of the Hugging Face hub's HTTP API that pushing and pulling use, on loopback, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


def commit_of(files: dict[str, bytes]) -> str:
    """The client keeps the list of files per commit."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """repositories: `datasets/USER/NAME` or `models/USER/NAME` → file → content."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str | None] = set()
        self.asked: list[str] = []
        self.refuses: int | None = None
        """Status of every answer, if set."""
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def handle_one(self) -> None:
        body = self._body()
        self.server.asked.append(self.path)
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            return self._answer({"error": "refused"}, self.server.refuses)
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|revision|tree)/.*", path):
            return getattr(self, f"_{found[3]}")(f"{found[1]}/{found[2]}", body)
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(f"{found[1] or 'models/'}{found[2]}", found[3])
        return self._answer({"error": path}, 404)

    do_GET = do_POST = do_HEAD = handle_one  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _create(self, asked: dict[str, Any]) -> None:
        kind = f"{asked.get('type') or 'model'}s"
        name = (
            f"{kind}/{asked['organization']}/{asked['name']}"
            if asked.get("organization")
            else f"{kind}/{asked['name']}"
        )
        if name in self.server.repositories:
            return self._answer({"error": "exists", "url": f"{self.server.url}/{name.removeprefix('models/')}"}, 409)
        self.server.repositories[name] = {}
        self.server.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
        return self._answer({"url": f"{self.server.url}/{name.removeprefix('models/')}"})

    def _preupload(self, name: str, body: bytes) -> None:
        files = [file["path"] for file in json.loads(body)["files"]]
        self._answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]})

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = commit_of(self.server.repositories[name])
        url = f"{self.server.url}/{name.removeprefix('models/')}/commit/{commit}"
        self._answer({"success": True, "commitUrl": url, "commitOid": commit})

    def _revision(self, name: str, body: bytes) -> None:
        if name not in self.server.repositories:
            return self._answer({"error": "no such repository"}, 404, {"X-Error-Code": "RepoNotFound"})
        siblings = [{"rfilename": path} for path in self.server.repositories[name]]
        return self._answer(
            {"id": name.partition("/")[2], "sha": commit_of(self.server.repositories[name]), "siblings": siblings}
        )

    def _tree(self, name: str, body: bytes) -> None:
        files = self.server.repositories[name].items()
        self._answer(
            [{"type": "file", "path": p, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for p, d in files]
        )

    def _file(self, name: str, path: str) -> None:
        data, commit = self.server.repositories[name][path], commit_of(self.server.repositories[name])
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        self._send(data, 200, headers)

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass
