"""Captions from vLLM: an engine in this process, or any server that speaks the OpenAI completions protocol."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dmp_core.config.stages import VLLMPrompts
from dmp_core.errors import InputError, MissingExtra
from dmp_core.prompts.base import fill_template

_CONNECTIONS = 32  # requests in flight; the server batches them
_TRIES = 4
_PAUSE = 1.0  # seconds before the second try; doubles each time
_TIMEOUT = 300.0  # seconds for one answer
_FIELD = "prompts.generator.server_url"


class VLLMGenerator:
    """Samples one completion a keyword, each from its own seed (the paper: bloomz-7b1, section 4.1)."""

    name: str

    def __init__(self, settings: VLLMPrompts, device: str = "auto") -> None:
        self.settings = settings
        self.name = f"vllm:{settings.model}"
        self._engine = None if settings.server_url else _start_engine(settings)

    def generate(self, keywords: Sequence[str], template: str, seeds: Sequence[int]) -> list[str]:
        """Raw completions, one a keyword; see `CaptionGenerator`."""
        pairs = list(zip(keywords, seeds, strict=True))
        requests = [fill_template(template, keyword, seed) for keyword, seed in pairs]
        if self._engine is not None:
            return self._ask_engine(self._engine, requests, list(seeds))
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return list(pool.map(self._ask_server, requests, seeds))

    def _ask_engine(self, engine: Any, requests: list[str], seeds: list[int]) -> list[str]:
        from vllm import SamplingParams

        draws = [
            SamplingParams(
                temperature=self.settings.temperature,
                min_tokens=self.settings.min_new_tokens,
                max_tokens=self.settings.max_new_tokens,
                seed=seed,
            )
            for seed in seeds
        ]
        answers = engine.generate(requests, draws, use_tqdm=False)
        return [answer.outputs[0].text for answer in answers]

    def _ask_server(self, request: str, seed: int) -> str:
        answer = self._post(
            {
                "model": self.settings.model,
                "prompt": request,
                "temperature": self.settings.temperature,
                "min_tokens": self.settings.min_new_tokens,
                "max_tokens": self.settings.max_new_tokens,
                "seed": seed,
            }
        )
        try:
            return str(answer["choices"][0]["text"])
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"{_FIELD}: {self._endpoint()} answered without choices[0].text; is it a completions server?"
            ) from None

    def _endpoint(self) -> str:
        base = str(self.settings.server_url).rstrip("/").removesuffix("/v1")
        return f"{base}/v1/completions"

    def _post(self, body: dict[str, Any]) -> Any:
        """One request; tried again while the server is busy or out of reach, not when it finds the request bad."""
        request = urllib.request.Request(
            self._endpoint(), json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}: {error.read(500).decode(errors='replace')}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError) as error:  # out of reach, timed out, or not JSON
                reason = str(getattr(error, "reason", error))
        raise InputError(
            f"{_FIELD}: {self._endpoint()} does not answer ({reason}); start the server or correct the address"
        )


def _start_engine(settings: VLLMPrompts) -> Any:
    try:
        from vllm import LLM
    except ImportError:
        raise MissingExtra("vllm", "vllm") from None
    return LLM(model=settings.model, revision=settings.revision)
