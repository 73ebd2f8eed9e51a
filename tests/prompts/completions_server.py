"""A local server with the OpenAI completions protocol and a real tiny language model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from dmp_core.prompts.settings import TransformersPrompts
from dmp_core.prompts.transformers_lm import TransformersGenerator


class Server(ThreadingHTTPServer):
    """Serves the model under its folder's path; `failures` contains status codes for the first responses."""

    request_queue_size = 64  # all of the generator's connections may come at the same time
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = str(folder)
        self.requests: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.cuts = 0
        """Number of responses that break off in the middle."""
        self.answers: dict[str, Any] = {}
        """Path → response in place of the normal one."""
        self.key: str | None = None
        self._lm: TransformersGenerator | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "tests"}]}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """One completion, drawn with the request's own settings and seed."""
        settings = TransformersPrompts(
            model=body["model"],
            chat=False,
            temperature=body["temperature"],
            min_new_tokens=body["min_tokens"],
            max_new_tokens=body["max_tokens"],
            top_k=body.get("top_k", 0),
        )
        with self._one_at_a_time:
            if self._lm is None or self._lm.settings != settings:
                self._lm = TransformersGenerator(settings, device="cpu")
            [text] = self._lm.generate([body["prompt"]], "{keyword}", [body["seed"]])
        return {"object": "text_completion", "choices": [{"index": 0, "text": text}]}

    def count(self, body: dict[str, Any]) -> dict[str, Any]:
        """As vLLM's `/tokenize`."""
        tokens = AutoTokenizer.from_pretrained(body["model"])(body["prompt"])["input_ids"]
        return {"count": len(tokens), "max_model_len": 256, "tokens": tokens}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(self.server.models if self.path == "/v1/models" else None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        known = {"/v1/completions": self.server.complete, "/tokenize": self.server.count}
        make = known.get(self.path)
        self._answer(None if make is None else lambda: make(body))

    def _answer(self, make: Any) -> None:
        status = self.server.failures.pop(0) if self.server.failures else 404 if make is None else 200
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            status = 401
        answer = self.server.answers.get(self.path) or (make() if status == 200 else {"error": "not now"})
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        cut = self.server.cuts > 0
        self.server.cuts -= cut
        self.wfile.write(payload[: len(payload) // 2] if cut else payload)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """The server, running until the block ends."""
    with Server(folder) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
