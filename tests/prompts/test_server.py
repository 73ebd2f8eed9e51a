"""Captions from a server with the OpenAI completions protocol: a real model over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dmp_core.dataset.settings import SplitConfig
from dmp_core.errors import InputError
from dmp_core.prompts import build_generator, make_captions, server
from dmp_core.prompts.server import ServerGenerator
from dmp_core.prompts.settings import PromptsConfig, TransformersPrompts, VLLMPrompts
from dmp_core.prompts.transformers_lm import TransformersGenerator
from tests.prompts.completions_server import Server, serving
from tests.prompts.tiny_lm import save_tiny_bloom

TEMPLATE = "describe a photo of a {keyword}"
LENGTHS = {"min_new_tokens": 3, "max_new_tokens": 12}
FIELD = r"prompts\.generator\.server_url"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bloom(tmp_path_factory.mktemp("bloom"))


@pytest.fixture
def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(server, "_PAUSE", 0.01)
    with serving(folder) as ready:
        yield ready


def settings(running: Server, **others: object) -> VLLMPrompts:
    return VLLMPrompts.model_validate({"model": running.model, "server_url": running.url, **LENGTHS, **others})


def test_the_server_s_model_answers_in_order_from_each_caption_s_own_seed(running: Server) -> None:
    lm = ServerGenerator(settings(running))
    keywords, seeds = ["bedroom", "kitchen", "street", "room"] * 3, list(range(2**62, 2**62 + 12))
    here = TransformersPrompts(model=running.model, chat=False, batch_size=1, **LENGTHS)
    assert lm.generate(keywords, TEMPLATE, seeds) == TransformersGenerator(here, "cpu").generate(
        keywords, TEMPLATE, seeds
    )
    assert lm.name == f"server:{running.model}"
    assert lm.facts == {"server": running.url, "owned_by": "tests", "not_applied": ["eta_cutoff"]}


def test_bounds_that_count_the_request_are_sent_per_request(running: Server) -> None:
    lm = ServerGenerator(settings(running, top_k=5, min_length=9, max_length=14, min_new_tokens=1))
    keywords, seeds = ["bedroom", "large bright street", "bedroom"], [1, 2, 3]
    texts = lm.generate(keywords, TEMPLATE, seeds)
    here = TransformersPrompts(
        model=running.model, chat=False, top_k=5, min_length=9, max_length=14, min_new_tokens=1, max_new_tokens=12,
        batch_size=1,
    )  # fmt: skip
    assert texts == TransformersGenerator(here, "cpu").generate(keywords, TEMPLATE, seeds)
    sent = {body["prompt"]: body for body in running.requests if "max_tokens" in body}
    assert {body["top_k"] for body in sent.values()} == {5}
    assert sent["describe a photo of a bedroom"]["max_tokens"] == 14 - 6
    assert sent["describe a photo of a bedroom"]["min_tokens"] == 9 - 6
    assert sent["describe a photo of a large bright street"]["max_tokens"] == 14 - 8
    counted = [body["prompt"] for body in running.requests if "max_tokens" not in body]
    assert len(counted) == len(set(counted)) == 2  # each distinct request once


def test_a_server_that_cannot_count_tokens_is_named_with_the_settings_that_need_it(running: Server) -> None:
    running.answers["/tokenize"] = {"tokens": [1, 2]}
    with pytest.raises(InputError, match=r"/tokenize does not count tokens.*min_length and max_length.*null"):
        ServerGenerator(settings(running, max_length=14)).generate(["attic"], TEMPLATE, [1])
    plain = ServerGenerator(settings(running))
    assert len(plain.generate(["attic"], TEMPLATE, [1])) == 1  # without total lengths nobody counts


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_have_any_known_suffix(running: Server, suffix: str) -> None:
    lm = ServerGenerator(settings(running, server_url=running.url + suffix))
    assert len(lm.generate(["attic"], "{keyword}", [1])) == 1


def test_a_split_made_by_a_server_is_the_one_made_here(running: Server) -> None:
    split = SplitConfig(keywords=["bedroom", "kitchen"], count=6)
    tables = [
        make_captions(
            "s", split, PromptsConfig(generator=chosen, template=TEMPLATE, max_rounds=30), 0, device="cpu"
        ).table
        for chosen in (settings(running), TransformersPrompts(model=running.model, chat=False, **LENGTHS))
    ]
    build_generator.cache_clear()
    assert tables[0]["prompt"].tolist() == tables[1]["prompt"].tolist()
    assert set(tables[0]["generator"]) == {f"server:{running.model}"}


def test_a_request_to_a_busy_server_is_repeated(running: Server) -> None:
    running.failures = [503, 429]
    lm = ServerGenerator(settings(running))
    running.failures = [500]
    assert len(lm.generate(["attic"], "{keyword}", [1])) == 1
    assert len(running.requests) == 2


def test_a_request_whose_response_breaks_off_is_repeated(running: Server) -> None:
    running.cuts = 1
    lm = ServerGenerator(settings(running))
    whole = lm.generate(["attic"], "{keyword}", [1])
    running.cuts = 1
    assert lm.generate(["attic"], "{keyword}", [1]) == whole
    assert len(running.requests) == 3


def test_a_model_that_is_not_served_is_named_with_those_that_are(running: Server) -> None:
    with pytest.raises(InputError, match=rf"{FIELD}.*serves {running.model}, and not 'bigscience/bloomz-7b1'"):
        ServerGenerator(settings(running, model="bigscience/bloomz-7b1"))
    assert running.requests == []  # no request was sent in vain


def test_a_refusal_is_reported_immediately(running: Server) -> None:
    lm = ServerGenerator(settings(running))
    running.failures = [400, 400]
    with pytest.raises(InputError, match=rf"{FIELD}.*400.*not now"):
        lm.generate(["attic"], "{keyword}", [1])
    assert len(running.requests) == 1


def test_the_key_comes_from_the_environment(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    running.key = "open sesame"
    with pytest.raises(InputError, match=rf"{FIELD}.*401"):
        ServerGenerator(settings(running))
    monkeypatch.setenv("VLLM_API_KEY", "open sesame")
    assert len(ServerGenerator(settings(running)).generate(["attic"], "{keyword}", [1])) == 1


@pytest.mark.parametrize(
    ("path", "says"), [("/v1/models", "lists no models"), ("/v1/completions", r"choices\[0\]\.text")]
)
def test_another_kind_of_server_is_named(running: Server, path: str, says: str) -> None:
    running.answers[path] = {"hello": "world"}
    with pytest.raises(InputError, match=rf"{FIELD}.*{says}"):
        ServerGenerator(settings(running)).generate(["attic"], "{keyword}", [1])


def test_a_malformed_address_is_one_clear_error(running: Server) -> None:
    with pytest.raises(InputError, match=rf"{FIELD}: http://localhost:abc/v1/models does not answer"):
        ServerGenerator(settings(running, server_url="http://localhost:abc"))


def test_no_server_at_all(running: Server) -> None:
    nowhere = settings(running)
    running.server_close()
    with pytest.raises(InputError, match=r"does not answer .*start the server"):
        ServerGenerator(nowhere)
    with pytest.raises(InputError, match=r"does not answer .*unknown url type"):
        ServerGenerator(settings(running, server_url="localhost:8000"))


def test_the_key_does_not_follow_a_redirect_to_another_host(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moved(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{running.url}{self.path}")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    running.key = "open sesame"
    monkeypatch.setenv("VLLM_API_KEY", "open sesame")
    moved = HTTPServer(("127.0.0.1", 0), Moved)
    threading.Thread(target=moved.handle_request, daemon=True).start()
    with pytest.raises(InputError, match=rf"{FIELD}.*401"):
        ServerGenerator(settings(running, server_url=f"http://127.0.0.1:{moved.server_port}"))
    moved.server_close()


def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(f"bad key: {self.headers['Authorization']}".encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("VLLM_API_KEY", "planted0secret")
    refusing = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=refusing.handle_request, daemon=True).start()
    with pytest.raises(InputError, match=r"401 .*bad key: Bearer \*\*\*") as raised:
        ServerGenerator(VLLMPrompts(server_url=f"http://127.0.0.1:{refusing.server_port}"))
    refusing.server_close()
    assert "planted0secret" not in str(raised.value)
