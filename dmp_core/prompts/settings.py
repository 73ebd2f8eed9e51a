"""Settings of captions: the request, and the generator."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from dmp_core.errors import InputError
from dmp_core.names import Precision
from dmp_core.passwords import refuse_password
from dmp_core.prompts.vary import VaryConfig
from dmp_core.settings import Settings, since

PAPER_TEMPLATE = (
    "Provide a caption for a photo of a {keyword}. The caption should contain many adjectives, "
    "should describe colors, styles, lighting and materials in the photo, should be in English and "
    "should be no longer than 150 characters. Caption:"
)


class GrammarPrompts(Settings):
    """Captions from a built-in grammar: no model, instant."""

    kind: Literal["grammar"] = "grammar"


class TransformersPrompts(Settings):
    """Captions from any causal language model that transformers loads, including GGUF."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """Hub id or local folder, or `package:NAME` for a model in a Python package."""
    revision: str | None = since(None)
    """Branch, tag or commit on the hub; None: the newest."""
    gguf_file: str | None = None
    """Name of the weights in `model`, for a model in GGUF; None: safetensors."""
    dtype: Precision | None = since(None)
    """Of the weights; None: the checkpoint's own on an accelerator, float32 on a CPU."""
    chat: bool = True
    """Wrap the request in the model's chat template when it has one."""
    answer_prefix: str = ""
    """First words of every caption, given to the model; keeps small models on the subject."""
    batch_size: PositiveInt = 64
    """Captions that are written at once."""
    temperature: PositiveFloat = 0.95
    """Of sampling: lower writes likelier words."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw among the likeliest tokens that have this much of the probability together; 1: among all."""
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Entropy-dependent bound below which tokens are never drawn (Hewitt et al. 2022); 0: none."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 15
    """Least tokens of a caption."""
    max_new_tokens: PositiveInt = 128
    """Most tokens of a caption."""
    top_k: Annotated[int, Field(ge=0)] = since(0)
    """Draw among this many of the likeliest tokens; 0: among all."""
    min_length: PositiveInt | None = since(None)
    """Least tokens of request and caption together, in addition to `min_new_tokens`."""
    max_length: PositiveInt | None = since(None)
    """Most tokens of request and caption together, in addition to `max_new_tokens`."""


class VLLMPrompts(Settings):
    """Captions from a vLLM engine (bloomz in the paper) or an OpenAI-compatible server; see docs/prompts.md."""

    kind: Literal["vllm"] = "vllm"
    model: str = "bigscience/bloomz-7b1"
    """Hub id or local folder; with `server_url` the name that the server knows."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None: the newest."""
    server_url: str | None = None
    """Base URL of an OpenAI-compatible server; None runs the engine in this process."""
    fallback: bool = True
    """If no vLLM can run this model, let transformers write the captions, with a log message; False: fail instead.
    A server is never replaced."""
    dtype: Precision | None = None
    """Of the weights; None: the checkpoint's own. A server decides on its own."""
    gpu_memory_utilization: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the memory that the engine may use; None: vLLM's own default."""
    max_model_len: PositiveInt | None = None
    """Tokens of request and caption together; fewer need less memory. None: the model's own limit."""
    temperature: PositiveFloat = 0.95
    """Of sampling: lower writes likelier words."""
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] = 1e-5
    """Published, but vLLM has no eta sampling: only transformers, as the fallback, applies it."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 15
    """Least tokens of a caption."""
    max_new_tokens: PositiveInt = 128
    """Most tokens of a caption."""
    top_k: Annotated[int, Field(ge=0)] = since(0)
    """Draw among this many of the likeliest tokens; 0: among all."""
    min_length: PositiveInt | None = since(None)
    """Least tokens of request and caption together, in addition to `min_new_tokens`."""
    max_length: PositiveInt | None = since(None)
    """Most tokens of request and caption together, in addition to `max_new_tokens`."""

    @property
    def counts_request(self) -> bool:
        """Whether the bounds of a caption depend on its request."""
        return self.min_length is not None or self.max_length is not None

    @field_validator("server_url")
    @classmethod
    def _without_key(cls, address: str | None) -> str | None:
        if address and "?" in address:
            raise ValueError("give the address without a query; a key goes into the environment variable VLLM_API_KEY")
        return address and refuse_password(address, "a key goes into the variable VLLM_API_KEY")

    @model_serializer(mode="wrap")
    def _without_resources(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Omit from fingerprints where the model runs and with how much memory."""
        values: dict[str, Any] = handler(self)
        if info.context and info.context.get("fingerprint"):
            how = ("server_url", "gpu_memory_utilization", "max_model_len")
            values = {name: value for name, value in values.items() if name not in how}
        return values


def caption_bounds(settings: TransformersPrompts | VLLMPrompts, request: int) -> tuple[int, int]:
    """Least and most tokens of a caption whose request has this many.

    Raises InputError if the request leaves no room for a caption.
    """
    most = settings.max_new_tokens
    if settings.max_length is not None:
        most = min(most, settings.max_length - request)
    if most < 1:
        raise InputError(
            f"prompts.generator.max_length: {settings.max_length} tokens, and the request alone has {request}; raise "
            "it, or set it to null"
        )
    return min(most, max(settings.min_new_tokens, (settings.min_length or 0) - request)), most


def vllm_bounds(settings: VLLMPrompts, request: int) -> dict[str, int]:
    """The same and `top_k` under vLLM's names; request: its number of tokens, read only if `counts_request`."""
    least, most = caption_bounds(settings, request)
    return {"min_tokens": least, "max_tokens": most} | ({"top_k": settings.top_k} if settings.top_k else {})


class PromptsConfig(Settings):
    """Captions of the images, made from the keywords."""

    template: str = PAPER_TEMPLATE
    """Request to the language model; `{keyword}` is filled in (section 4.1).

    `{details}`, if there, becomes two objects and a light, drawn for each caption.
    """
    max_characters: PositiveInt = 150
    """Longer captions are truncated after the last sentence or clause that fits."""
    max_rounds: PositiveInt = 10
    """Rounds of attempts at missing captions before the stage gives up."""
    vary: VaryConfig | None = since(None)
    """Weights of what captions draw; a language model's request carries the draw, as `{details}`."""
    generator: Annotated[GrammarPrompts | TransformersPrompts | VLLMPrompts, Field(discriminator="kind")]
    """The caption generator."""

    @model_validator(mode="after")
    def _template_has_keyword(self) -> PromptsConfig:
        if "{keyword}" not in self.template:
            raise ValueError("template must contain {keyword}")
        if self.vary and self.generator.kind != "grammar" and "{details}" not in self.template:
            raise ValueError("vary: a language model follows it only if template contains {details}; add it")
        return self
