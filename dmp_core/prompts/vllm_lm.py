"""Captions from vLLM: an engine in this process, a server, or transformers where no vLLM runs the model."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from dmp_core.errors import InputError, MissingExtra
from dmp_core.prompts.base import CaptionGenerator, fill_template
from dmp_core.prompts.server import ServerGenerator
from dmp_core.prompts.settings import TransformersPrompts, VLLMPrompts, vllm_bounds
from dmp_core.prompts.vary import VaryConfig
from dmp_core.weights.resolve import Located, resolve_model

logger = logging.getLogger(__name__)


def open_vllm(settings: VLLMPrompts, device: str = "auto") -> CaptionGenerator:
    """The server if one is set; else an engine; else, if `settings.fallback` allows it, transformers.

    Raises InputError if the model cannot be found, the engine does not start, or no vLLM can run
    the model and the fallback is off.
    """
    if settings.server_url is not None:
        return ServerGenerator(settings)
    lack = missing_support(settings)
    if not lack:
        return VLLMGenerator(settings)
    if not settings.fallback:
        raise InputError(
            f"prompts.generator: {lack}; install a vLLM that runs the model (docs/prompts.md), set "
            "prompts.generator.server_url, or let transformers write: prompts.generator.fallback=true"
        )
    return _stand_in(settings, device, lack)


class VLLMGenerator:
    """Samples one completion per keyword, each from its own seed (the paper: bloomz-7b1, section 4.1)."""

    name: str
    facts: dict[str, Any]

    def __init__(self, settings: VLLMPrompts) -> None:
        self.settings = settings
        self.name = f"vllm:{settings.model}"
        self._engine = _start_engine(settings)
        self._tokens: dict[str, int] = {}
        weakref.finalize(self, _shut_down, self._engine)
        import vllm

        self.facts = {"vllm": vllm.__version__}
        if settings.eta_cutoff:
            self.facts["not_applied"] = ["eta_cutoff"]

    def generate(
        self, keywords: Sequence[str], template: str, seeds: Sequence[int], vary: VaryConfig | None = None
    ) -> list[str]:
        """Raw completions, one per keyword; see `CaptionGenerator`."""
        from vllm import SamplingParams

        requests = [fill_template(template, *pair, vary) for pair in zip(keywords, seeds, strict=True)]
        draws = [
            SamplingParams(temperature=self.settings.temperature, seed=seed, **self._bounds(request))
            for request, seed in zip(requests, seeds, strict=True)
        ]
        completions = self._engine.generate(requests, draws, use_tqdm=False)
        return [completion.outputs[0].text for completion in completions]

    def _bounds(self, request: str) -> dict[str, int]:
        """Bounds of the draw and of the completion's length, under vLLM's names."""
        if self.settings.counts_request and request not in self._tokens:
            self._tokens[request] = len(self._engine.get_tokenizer()(request)["input_ids"])
        return vllm_bounds(self.settings, self._tokens.get(request, 0))


def missing_support(settings: VLLMPrompts) -> str:
    """Why the installed vLLM cannot run this model on this machine; "" if it can."""
    if find_spec("vllm") is None:
        return "vLLM is not installed"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        from vllm import ModelRegistry, __version__
        from vllm.platforms import current_platform
    except Exception as error:  # built against another torch or CUDA, it may raise anything
        return f"the installed vLLM cannot be imported ({_first_line(error)})"
    if not current_platform.device_type:
        return f"vLLM {__version__} finds no device that it was built for"
    architectures = _architectures(settings)
    if not set(architectures) & set(ModelRegistry.get_supported_archs()):
        return f"vLLM {__version__} does not run {' or '.join(architectures) or settings.model}"
    return ""


def _architectures(settings: VLLMPrompts) -> list[str]:
    """Class names in the model's `config.json`."""
    from transformers import AutoConfig

    located = _located(settings)
    try:
        config = AutoConfig.from_pretrained(located.place, trust_remote_code=False, **located.options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"prompts.generator.model: {settings.model!r} has no readable config.json ({_first_line(error)}); "
            "give a hub id or a folder with config.json, weights and tokenizer"
        ) from error
    return list(config.architectures or [])


def _located(settings: VLLMPrompts) -> Located:
    return resolve_model(settings.model, "prompts.generator.model", revision=settings.revision)


def _start_engine(settings: VLLMPrompts) -> Any:
    from vllm import LLM

    located = _located(settings)
    chosen = {
        "revision": located.revision,
        "dtype": settings.dtype,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "max_model_len": settings.max_model_len,
    }
    try:
        return LLM(model=located.place, **{name: value for name, value in chosen.items() if value is not None})
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"prompts.generator: vLLM cannot start {settings.model!r} ({_first_line(error)}; see its log); try "
            "another dtype, gpu_memory_utilization or max_model_len, or prompts.generator.kind=transformers"
        ) from error


def _shut_down(engine: Any) -> None:
    """The model is in a process of its own, or in this one; vLLM ends both by request, in versions that can."""
    core = getattr(getattr(engine, "llm_engine", None), "engine_core", None)
    for part in (engine, core):
        if (shutdown := getattr(part, "shutdown", None)) is not None:
            shutdown()
            return


def _stand_in(settings: VLLMPrompts, device: str, lack: str) -> CaptionGenerator:
    """transformers with the same sampling; logged once, and stated in its `facts`."""
    try:
        from dmp_core.prompts.transformers_lm import TransformersGenerator
    except MissingExtra:
        raise MissingExtra("vllm", "vllm") from None
    same = TransformersPrompts.model_fields.keys() & VLLMPrompts.model_fields.keys() - {"kind"}
    generator = TransformersGenerator(
        TransformersPrompts(chat=False, **{name: getattr(settings, name) for name in same}), device
    )
    generator.facts["instead_of"] = f"vllm:{settings.model}: {lack}"
    logger.warning("%s: transformers writes the captions in its place (docs/prompts.md)", lack)
    return generator


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
