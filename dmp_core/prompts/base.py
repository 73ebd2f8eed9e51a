"""The protocol of caption generators, and their lookup by the configuration's `kind`."""

from __future__ import annotations

import gc
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Protocol

from dmp_core.keywords.english import readable_keyword
from dmp_core.memory import release_memory
from dmp_core.prompts.grammar import GrammarGenerator, with_article
from dmp_core.prompts.settings import GrammarPrompts, TransformersPrompts, VLLMPrompts
from dmp_core.prompts.vary import VaryConfig

GeneratorSettings = GrammarPrompts | TransformersPrompts | VLLMPrompts


class CaptionGenerator(Protocol):
    """Writes captions, by a model or a grammar."""

    name: str
    """Goes into each sample's provenance: the actual generator and model.

    A generator may also have `facts`, a dict of further details for its artefact's manifest.
    """

    def generate(
        self, keywords: Sequence[str], template: str, seeds: Sequence[int], vary: VaryConfig | None = None
    ) -> list[str]:
        """One raw completion per keyword, in order.

        `template` is the request (see `fill_template`), `vary` weighs what is drawn for it, and is given only if it
        is set; `seeds` (63-bit, as many as keywords)
        decide the draw, so equal calls give equal texts. The texts are raw:
        `clean_caption` checks them.
        """
        ...


# kind → "module:class or function"; imported on first use, so that planning a run loads no model library.
# Called with the settings and the keyword argument `device`.
GENERATORS: dict[str, str] = {
    "grammar": "dmp_core.prompts.grammar:GrammarGenerator",
    "transformers": "dmp_core.prompts.transformers_lm:TransformersGenerator",
    "vllm": "dmp_core.prompts.vllm_lm:open_vllm",
}


@lru_cache(maxsize=1)
def build_generator(settings: GeneratorSettings, device: str = "auto") -> CaptionGenerator:
    """The generator of `settings.kind`; the last one is cached, as its model takes seconds to load.

    `free_generator` frees its memory.
    """
    module, _, name = GENERATORS[settings.kind].partition(":")
    generator: CaptionGenerator = getattr(import_module(module), name)(settings, device=device)
    return generator


def free_generator() -> None:
    """Free the memory of the cached generator and its model."""
    if build_generator.cache_info().currsize:
        build_generator.cache_clear()
        gc.collect()
        release_memory()


def fill_template(template: str, keyword: str, seed: int, vary: VaryConfig | None = None) -> str:
    """The request for one caption; other braces in the template are kept.

    `{keyword}` becomes the keyword in plain words, with the right article in place of an
    `a` before it. `{details}` becomes two objects and a light that the renderer can draw,
    drawn by `seed`: small models mention few objects and fewer colours on their own.
    """
    phrase = readable_keyword(keyword)
    has_article = phrase.lower().startswith(("a ", "an ", "the "))
    with_its_article = phrase if has_article else with_article(phrase)
    request = re.sub(r"\ba \{keyword\}", lambda _: with_its_article, template).replace("{keyword}", phrase)
    if "{details}" in request:
        request = request.replace("{details}", GrammarGenerator().details(keyword, random.Random(seed), vary))
    return request
