"""The vLLM generator against a local server that speaks the OpenAI completions protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest

from dmp_core.config.stages import VLLMPrompts
from dmp_core.errors import InputError, MissingExtra
from dmp_core.prompts import vllm_lm
from dmp_core.prompts.vllm_lm import VLLMGenerator


class Server(ThreadingHTTPServer):
    """Answers `seed: prompt`; `failures` holds status codes to answer with first."""

    request_queue_size = 64  # all of the generator's connections may come at once

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[int] = []
        self.answer: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        status = self.server.failures.pop(0) if self.server.failures else 200
        text = f"{body['seed']}: {body['prompt']}"
        answer = {"error": "bad model"} if status != 200 else self.server.answer or {"choices": [{"text": text}]}
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(vllm_lm, "_PAUSE", 0.01)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_one_request_a_caption_in_order_with_its_own_seed(server: Server, suffix: str) -> None:
    lm = VLLMGenerator(VLLMPrompts(server_url=server.url + suffix, temperature=0.95))
    keywords = [f"room_{index}" for index in range(50)]
    texts = lm.generate(keywords, "Caption a {keyword}:", list(range(100, 150)))
    assert texts == [f"{100 + index}: Caption a room {index}:" for index in range(50)]
    assert {path for path, _ in server.requests} == {"/v1/completions"}
    body = server.requests[0][1]
    assert (body["model"], body["temperature"]) == ("bigscience/bloomz-7b1", 0.95)
    assert (body["min_tokens"], body["max_tokens"]) == (15, 128)
    assert lm.name == "vllm:bigscience/bloomz-7b1"


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.failures = [503, 429]
    lm = VLLMGenerator(VLLMPrompts(server_url=server.url))
    assert lm.generate(["attic"], "{keyword}", [1]) == ["1: attic"]
    assert len(server.requests) == 3


def test_a_refusal_is_reported_at_once(server: Server) -> None:
    server.failures = [404]
    lm = VLLMGenerator(VLLMPrompts(server_url=server.url))
    with pytest.raises(InputError, match=r"prompts\.generator\.server_url.*404.*bad model"):
        lm.generate(["attic"], "{keyword}", [1])
    assert len(server.requests) == 1


def test_another_kind_of_server_is_named(server: Server) -> None:
    server.answer = {"hello": "world"}
    lm = VLLMGenerator(VLLMPrompts(server_url=server.url))
    with pytest.raises(InputError, match=r"choices\[0\]\.text"):
        lm.generate(["attic"], "{keyword}", [1])


def test_no_server_at_all(server: Server) -> None:
    url = server.url
    server.server_close()
    lm = VLLMGenerator(VLLMPrompts(server_url=url))
    with pytest.raises(InputError, match=r"does not answer .*start the server"):
        lm.generate(["attic"], "{keyword}", [1])


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"dmp-pipeline\[vllm\]"):
        VLLMGenerator(VLLMPrompts())
