"""Captions from any causal language model that transformers loads (GGUF too), on this machine."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError, MissingExtra
from dmp_core.prompts.base import fill_template
from dmp_core.prompts.gguf_cache import converted_gguf, locate_language_model, quiet_transformers
from dmp_core.prompts.sentences import abbreviations, is_abbreviated
from dmp_core.prompts.settings import TransformersPrompts, caption_bounds
from dmp_core.prompts.subject import phrase_of
from dmp_core.prompts.vary import VaryConfig
from dmp_core.weights.resolve import UNREADABLE, why_unreadable

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LogitsProcessor, StoppingCriteria
    from transformers.generation.logits_process import EtaLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper

    from dmp_core.weights.load import choose_device
except ImportError as error:
    raise MissingExtra(error.name or "transformers", "llm") from None

# A full stop after a letter ("2." may become "2.5"), or a line that is not an introduction ("Caption:").
_SENTENCE = re.compile(r"(?<=[^\W\d_])[)\"']? ?([.!?])[\"']?(?=\s|$)")
_LINE = re.compile(r"[^:\s][ \t]*\n")


class TransformersGenerator:
    """Samples one short completion per keyword.

    A completion ends with its first sentence or line: captions are one sentence, and
    the rest would be discarded. Every row draws from its own seed, so a row's text is a
    function of (request, seed), up to the rounding that differs between batch shapes,
    thread counts and devices; the same batch on the same machine gives the same bytes.
    """

    name: str
    facts: dict[str, Any]

    def __init__(self, settings: TransformersPrompts, device: str = "auto") -> None:
        self.settings = settings
        self.name = f"transformers:{Path(settings.gguf_file).stem if settings.gguf_file else Path(settings.model).name}"
        self.device = choose_device(device)
        self.model, self.tokenizer = _load(settings, self.device)
        self.facts = {"device": self.device, "dtype": str(self.model.dtype).removeprefix("torch.")}
        self._chat = settings.chat and bool(self.tokenizer.chat_template)
        end = self.model.generation_config.eos_token_id
        self._end_tokens = torch.tensor(end if isinstance(end, list) else [end], device=self.device)

    def generate(
        self, keywords: Sequence[str], template: str, seeds: Sequence[int], vary: VaryConfig | None = None
    ) -> list[str]:
        """Raw completions, one per keyword; see `CaptionGenerator`."""
        requests = [self._request(template, *pair, vary) for pair in zip(keywords, seeds, strict=True)]
        size = self.settings.batch_size
        texts: list[str] = []
        for start in range(0, len(requests), size):
            part = slice(start, start + size)
            short = [abbreviations(phrase_of(keyword)) for keyword in keywords[part]]
            texts.extend(self._complete(requests[part], list(seeds[part]), short))
        return texts

    def _request(self, template: str, keyword: str, seed: int, vary: VaryConfig | None = None) -> list[int]:
        """Token ids of the whole request, up to where the model continues."""
        text, opening = fill_template(template, keyword, seed, vary), self.settings.answer_prefix
        if self._chat:
            message = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) + opening
        else:
            text = f"{text} {opening}".rstrip()
        return list(self.tokenizer(text, add_special_tokens=not self._chat)["input_ids"])

    def _complete(self, requests: list[list[int]], seeds: list[int], short: list[frozenset[str]]) -> list[str]:
        """One batch; it shrinks whenever a quarter of its rows are finished, since sentence lengths vary."""
        shared = _shared_start(requests)
        ids, mask = self._padded(requests, shared)
        start = ids.shape[1]
        bounds = [caption_bounds(self.settings, len(request)) for request in requests]
        least, most = torch.tensor(bounds, device=self.device).unbind(-1)
        draw = _SeededDraw(seeds, start, self.settings.max_new_tokens)
        rows = torch.arange(len(requests), device=self.device)
        texts = [""] * len(requests)
        with torch.inference_mode():
            past = self._prefill(requests[0][:shared], len(requests))
            while len(rows):
                kept = [short[row] for row in rows.tolist()]
                finished = _Finished(self.tokenizer, self._end_tokens, start, least[rows], most[rows], kept)
                ids = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    past_key_values=past,
                    do_sample=False,  # the last logits processor draws
                    max_new_tokens=start + int(most[rows].max()) - ids.shape[1],
                    pad_token_id=self.tokenizer.pad_token_id,
                    logits_processor=[_NoEnd(self._end_tokens, start, least[rows]), *self._warpers(), draw],
                    stopping_criteria=[finished],
                )
                done = finished.done | finished.full
                new = self.tokenizer.batch_decode(ids[done, start:], skip_special_tokens=True)
                for row, text, whole in zip(rows[done].tolist(), new, finished.done[done].tolist(), strict=True):
                    # At the token limit the last word may be incomplete.
                    texts[row] = self.settings.answer_prefix + (text if whole else text.rpartition(" ")[0])
                live = (~done).nonzero()[:, 0]
                rows, ids, draw = rows[live], ids[live], draw.of(live)
                mask = torch.nn.functional.pad(mask[live], (0, ids.shape[1] - mask.shape[1]), value=1)
                past.batch_select_indices(live)
        return texts

    def _padded(self, requests: list[list[int]], shared: int) -> tuple[Any, Any]:
        """(B, L) ids and mask; the padding is between the shared start and the rest of each row."""
        longest = max(len(request) for request in requests)
        pads = [longest - len(request) for request in requests]
        pad = self.tokenizer.pad_token_id
        ids = [row[:shared] + [pad] * n + row[shared:] for row, n in zip(requests, pads, strict=True)]
        mask = [[1] * shared + [0] * n + [1] * (longest - n - shared) for n in pads]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _prefill(self, shared: list[int], rows: int) -> Any:
        """The attention cache of the tokens that all requests start with, computed once.

        Requests are longer than completions and differ at most in the keyword, so this is
        most of the work.
        """
        if not shared:
            return DynamicCache()
        # The bare network, without the head: 50,000 logits for each of these tokens are not needed.
        past = self.model.base_model(torch.tensor([shared], device=self.device), use_cache=True).past_key_values
        past.batch_repeat_interleave(rows)
        return past

    def _warpers(self) -> list[Any]:
        processors: list[Any] = [TemperatureLogitsWarper(self.settings.temperature)]
        if self.settings.top_k:
            processors.append(TopKLogitsWarper(self.settings.top_k))
        if self.settings.top_p < 1:
            processors.append(_TopP(self.settings.top_p))
        if self.settings.eta_cutoff > 0:
            processors.append(EtaLogitsWarper(self.settings.eta_cutoff, device=self.device))
        return processors


class _TopP(LogitsProcessor):
    """Keeps the smallest set of likeliest tokens with `top_p` of the probability.

    The same as transformers' own, which sorts the whole vocabulary of every row: sorting took
    a third of the time on a CPU. The nucleus is nearly always among the first few hundred.
    """

    def __init__(self, top_p: float, candidates: int = 512) -> None:
        self.top_p, self.candidates = top_p, candidates

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """(B, vocabulary) logits → the same shape, -inf outside the nucleus."""
        top = scores.topk(min(self.candidates, scores.shape[1]), dim=-1).values
        before = (top - scores.logsumexp(-1, keepdim=True)).exp().cumsum(-1).roll(1, -1)
        before[:, 0] = 0.0
        if top.shape[1] < scores.shape[1] and bool((before[:, -1] < self.top_p).any()):
            return _TopP(self.top_p, scores.shape[1])(input_ids, scores)
        smallest = top.masked_fill(before >= self.top_p, torch.inf).amin(-1, keepdim=True)
        return scores.masked_fill(scores < smallest, -torch.inf)


class _SeededDraw(LogitsProcessor):
    """Draws each row's next token from its own random stream, by inverting the cumulative distribution.

    transformers samples a whole batch from one global generator: a row's text would
    depend on its neighbours, and on other draws in this process.
    """

    def __init__(self, seeds: list[int], start: int, max_new_tokens: int) -> None:
        self.start = start
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = [torch.rand(max_new_tokens, generator=stream, dtype=torch.float64) for stream in streams]
        self.uniform = torch.stack(drawn)

    def of(self, rows: Any) -> _SeededDraw:
        """The streams of some of the rows."""
        part = copy.copy(self)
        part.uniform = self.uniform[rows.cpu()]
        return part

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """(B, vocabulary) logits → the same shape, 0 for the drawn token and -inf elsewhere."""
        uniform = self.uniform[:, input_ids.shape[1] - self.start, None].to(scores.device)
        cumulative = scores.double().softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


class _NoEnd(LogitsProcessor):
    """No end token among a row's first `least` (B,) tokens; transformers' own has one bound for all rows."""

    def __init__(self, end_tokens: Any, start: int, least: Any) -> None:
        self.end_tokens, self.start, self.least = end_tokens, start, least

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        early = (input_ids.shape[1] - self.start < self.least)[:, None]
        ends = torch.zeros_like(scores[:1], dtype=torch.bool).index_fill(1, self.end_tokens, True)
        return scores.masked_fill(early & ends, -torch.inf)


class _Finished(StoppingCriteria):
    """Per row: stop at an end token, or once a sentence or a line is complete.

    least, most: bounds of each row's new tokens, (B,).
    short: abbreviations in each row's keyword, which do not end a sentence.
    `done` marks the finished rows, `full` those at their bound; when a quarter of all are either, all stop, so that
    the caller can drop those and continue with the others.
    """

    def __init__(
        self, tokenizer: Any, end_tokens: Any, start: int, least: Any, most: Any, short: Sequence[frozenset[str]]
    ) -> None:
        self.tokenizer, self.end_tokens, self.start, self.short = tokenizer, end_tokens, start, short
        self.least, self.most = least, most

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        new = input_ids[:, self.start :]
        # What follows a row's bound is padding, which may be an end token.
        own = torch.arange(new.shape[1], device=new.device) < self.most[:, None]
        self.done, self.full = (torch.isin(new, self.end_tokens) & own).any(-1), new.shape[1] >= self.most
        if (enough := new.shape[1] >= self.least).any():
            texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
            complete = [_is_complete(text.lstrip(), known) for text, known in zip(texts, self.short, strict=True)]
            self.done |= torch.tensor(complete, device=new.device) & enough
        stopped = self.done | self.full
        return stopped | (stopped.sum() * 4 >= len(new))


def _is_complete(text: str, short: frozenset[str]) -> bool:
    """Whether a line or a sentence ends in it; a full stop after an abbreviation does not end one."""
    return _LINE.search(text) is not None or any(
        match.group(1) != "." or not is_abbreviated(text[: match.start()], short) for match in _SENTENCE.finditer(text)
    )


def _load(settings: TransformersPrompts, device: str) -> tuple[Any, Any]:
    located, gguf_file = locate_language_model(settings.model, settings.gguf_file, settings.revision)
    source = str(converted_gguf(located.place, gguf_file)) if gguf_file else located.place
    options = located.options
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
            dtype = settings.dtype or ("float32" if device == "cpu" else "auto")
            model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=False, **options)
        except UNREADABLE as error:
            reason = why_unreadable(error)
            raise InputError(
                f"prompts.generator.model: {settings.model!r} cannot be loaded as a causal language model ({reason}); "
                "give a hub id or a folder with config.json, weights and tokenizer, or set gguf_file"
            ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer


def _shared_start(requests: list[list[int]]) -> int:
    """Number of tokens that all requests have in common; each keeps at least one of its own."""
    first, shortest = requests[0], min(len(request) for request in requests)
    same = (all(request[i] == first[i] for request in requests) for i in range(shortest - 1))
    return sum(1 for _ in takewhile(bool, same))
