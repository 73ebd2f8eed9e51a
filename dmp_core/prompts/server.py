"""Captions from any server that speaks the OpenAI completions protocol, as `vllm serve` does."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from dmp_core.errors import InputError
from dmp_core.prompts.base import fill_template
from dmp_core.prompts.settings import VLLMPrompts, vllm_bounds
from dmp_core.prompts.vary import VaryConfig

_CONNECTIONS = 32  # requests in flight; the server batches them
_TRIES = 4
_PAUSE = 1.0  # seconds before the second try; doubles each time
_TIMEOUT = 300.0  # seconds for one answer
_FIELD = "prompts.generator.server_url"


class ServerGenerator:
    """Asks for one completion a keyword, each with its own seed.

    A server that asks for a key gets the one in the environment variable `VLLM_API_KEY`.
    """

    name: str
    facts: dict[str, Any]

    def __init__(self, settings: VLLMPrompts) -> None:
        """Raises InputError unless the server answers and serves `settings.model`."""
        self.settings = settings
        self.base = str(settings.server_url).rstrip("/").removesuffix("/v1")
        served = self._served()
        if settings.model not in served:
            raise InputError(
                f"{_FIELD}: {self.base} serves {', '.join(served) or 'no model'}, and not {settings.model!r}; set "
                f"prompts.generator.model to what it serves, or start it with: vllm serve {settings.model}"
            )
        self.name = f"server:{settings.model}"
        # The server may run anything under this name; who it says to be is all that can be known.
        self.facts = {"server": self.base, "owned_by": served[settings.model]}
        if settings.eta_cutoff:
            self.facts["not_applied"] = ["eta_cutoff"]
        self._tokens: dict[str, int] = {}
        """Request → its number of tokens."""

    def generate(
        self, keywords: Sequence[str], template: str, seeds: Sequence[int], vary: VaryConfig | None = None
    ) -> list[str]:
        """Raw completions, one per keyword; see `CaptionGenerator`."""
        requests = [fill_template(template, *pair, vary) for pair in zip(keywords, seeds, strict=True)]
        if self.settings.counts_request:
            self._tokens |= {request: self._count(request) for request in {*requests} - self._tokens.keys()}
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return list(pool.map(self._complete, requests, seeds))

    def _served(self) -> dict[str, str]:
        """Model → owner, as the server lists them."""
        answer = self._call("/v1/models")
        try:
            return {str(model["id"]): str(model.get("owned_by", "")) for model in answer["data"]}
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                f"{_FIELD}: {self.base}/v1/models lists no models; is it an OpenAI-compatible server?"
            ) from None

    def _count(self, request: str) -> int:
        """Tokens of a request, by the server's own tokeniser: an endpoint of vLLM beside the protocol's."""
        try:
            return int(self._call("/tokenize", {"model": self.settings.model, "prompt": request})["count"])
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{_FIELD}: {self.base}/tokenize does not count tokens, which prompts.generator.min_length and "
                f"max_length need ({error}); take a vLLM server, or set both to null"
            ) from None

    def _complete(self, request: str, seed: int) -> str:
        answer = self._call(
            "/v1/completions",
            {
                "model": self.settings.model,
                "prompt": request,
                "temperature": self.settings.temperature,
                **vllm_bounds(self.settings, self._tokens.get(request, 0)),
                "seed": seed,
            },
        )
        try:
            return str(answer["choices"][0]["text"])
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"{_FIELD}: {self.base}/v1/completions answered without choices[0].text; is it a completions server?"
            ) from None

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request; tried again while the server is busy or out of reach, not when it finds the request bad."""
        key = os.environ.get("VLLM_API_KEY")
        data = None if body is None else json.dumps(body).encode()
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                request = urllib.request.Request(f"{self.base}{path}", data, {"Content-Type": "application/json"})
                if key:  # not for another host that the server redirects to
                    request.add_unredirected_header("Authorization", f"Bearer {key}")
                with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                said = error.read(500).decode(errors="replace")
                reason = f"{error.code} {error.reason}: {said.replace(key, '***') if key else said}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError, HTTPException) as error:  # out of reach, cut short, no URL, or not JSON
                reason = str(getattr(error, "reason", error))
        raise InputError(
            f"{_FIELD}: {self.base}{path} does not answer ({reason}); start the server or correct the address"
        )
