"""Whole splits of captions: counts, fairness, seeds, disjointness, and the error when captions are missing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmp_core.dataset.settings import SplitConfig
from dmp_core.errors import InputError
from dmp_core.prompts import caption_key, clean_caption, make_captions, read_keywords
from dmp_core.prompts.base import build_generator, fill_template
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.settings import GrammarPrompts, PromptsConfig, TransformersPrompts
from dmp_core.prompts.subject import phrase_of, refuse_unusable
from dmp_core.runtime import BadSampleConfig
from dmp_core.store import sample_seed
from tests.prompts.tiny_lm import save_tiny_lm

GRAMMAR = PromptsConfig(generator=GrammarPrompts())


class Recorded:
    """A generator that returns a list's texts in turn, and records its calls."""

    name = "recorded"

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.keywords, self.seeds = texts, [], []  # type: ignore[var-annotated]

    def generate(self, keywords: Sequence[str], template: str, seeds: Sequence[int]) -> list[str]:
        start = len(self.keywords)
        self.keywords += keywords
        self.seeds += seeds
        return [self.texts[i % len(self.texts)] for i in range(start, len(self.keywords))]


def test_the_table() -> None:
    table = make_captions("train", SplitConfig(keywords=["bedroom", "attic"], count=5), GRAMMAR, seed=7).table
    assert list(table.columns) == ["key", "split", "keyword", "prompt", "seed", "generator", "round"]
    assert table["key"].tolist() == [f"train-{index:08d}" for index in range(5)]
    assert table["keyword"].tolist() == ["bedroom", "attic", "bedroom", "attic", "bedroom"]
    assert set(table["split"]) == {"train"}
    assert set(table["generator"]) == {"grammar"}
    assert table["seed"].dtype == "int64"
    assert table["seed"].tolist() == [sample_seed(7, key) for key in table["key"]]


SKIP = BadSampleConfig(policy="skip", at_most=0.3)


class HalfMute:
    """Writes unusable captions of one keyword, and the grammar's of the others."""

    name = "half mute"

    def generate(self, keywords: Sequence[str], template: str, seeds: Sequence[int]) -> list[str]:
        written = GrammarGenerator().generate(keywords, template, seeds)
        return ["" if keyword == "attic" else text for keyword, text in zip(keywords, written, strict=True)]


def test_a_keyword_without_captions_is_skipped_and_keys_stay() -> None:
    split = SplitConfig(keywords=["bedroom", "attic", "kitchen", "hall"], count=8)
    with pytest.raises(InputError, match=r"6 of 8 captions.*short for attic \(0 of 2\)"):
        make_captions("train", split, GRAMMAR, 7, generator=HalfMute())
    made = make_captions("train", split, GRAMMAR, 7, generator=HalfMute(), bounds=SKIP)
    assert made.table["key"].tolist() == [f"train-{index:08d}" for index in (0, 2, 3, 4, 6, 7)]
    assert made.table["keyword"].tolist() == ["bedroom", "kitchen", "hall"] * 2
    assert made.table["seed"].tolist() == [sample_seed(7, key) for key in made.table["key"]]
    assert list(made.skipped) == ["train-00000001", "train-00000005"]
    assert made.skipped["train-00000001"].startswith("no caption of 'attic' in 10 rounds")


def test_more_keywords_without_captions_than_allowed_stop_the_stage() -> None:
    split, few = SplitConfig(keywords=["attic", "bedroom"], count=8), SKIP.model_copy(update={"at_most": 0.2})
    with pytest.raises(InputError, match=r"prompts/train: 2 of 8 samples failed, more than 1.*train-00000002: no cap"):
        make_captions("train", split, GRAMMAR, 7, generator=HalfMute(), bounds=few)


def test_same_seed_same_table_and_other_seed_other_prompts() -> None:
    split = SplitConfig(keywords=["kitchen"], count=20)
    table = make_captions("train", split, GRAMMAR, seed=1).table
    assert table.equals(make_captions("train", split, GRAMMAR, seed=1).table)
    assert not set(table["prompt"]) & set(make_captions("train", split, GRAMMAR, seed=2).table["prompt"])


def test_a_few_of_many_keywords_are_a_fair_sample() -> None:
    names = read_keywords("sun_indoor_409.txt")
    drawn = [
        make_captions("out_of_domain", SplitConfig(keywords_file="sun_indoor_409.txt", count=32), GRAMMAR, seed).table[
            "keyword"
        ]
        for seed in range(20)
    ]
    assert all(len(set(keywords)) == 32 for keywords in drawn)
    positions = [names.index(keyword) / 408 for keywords in drawn for keyword in keywords]
    assert 0.45 < sum(positions) / len(positions) < 0.55  # not the first 32 of the alphabet
    every = make_captions("o", SplitConfig(keywords_file="sun_indoor_409.txt", count=500), GRAMMAR, 0).table["keyword"]
    assert set(Counter(every).values()) == {1, 2}


def test_train_and_test_are_disjoint_with_the_grammar() -> None:
    """The same split name and seed would give the same prompts again; `exclude` alone makes them differ."""
    split = SplitConfig(keywords=["bedroom"], count=100)
    test = make_captions("x", split, GRAMMAR, seed=0).table
    shouted = [prompt.upper() + "!" for prompt in test["prompt"]]
    train = make_captions("x", split, GRAMMAR, seed=0, exclude=shouted).table
    assert not {caption_key(p) for p in train["prompt"]} & {caption_key(p) for p in test["prompt"]}
    assert len({caption_key(p) for p in train["prompt"]}) == 100


def test_train_and_test_are_disjoint_with_a_model(tmp_path: Path) -> None:
    """A narrow model (few, short captions) repeats itself: the splits collide without `exclude`."""
    settings = TransformersPrompts(
        model=str(save_tiny_lm(tmp_path)),
        answer_prefix="bedroom ",
        min_new_tokens=4,
        max_new_tokens=6,
        temperature=0.7,
        batch_size=128,
    )
    config = PromptsConfig(generator=settings, template="describe a {keyword}", max_rounds=30)
    split = SplitConfig(keywords=["bedroom"], count=40)
    test = make_captions("in_domain", split, config, seed=0, device="cpu").table
    careless = make_captions("train", split, config, seed=0, device="cpu").table
    train = make_captions("train", split, config, seed=0, exclude=list(test["prompt"]), device="cpu").table
    build_generator.cache_clear()
    test_keys = {caption_key(prompt) for prompt in test["prompt"]}
    assert test_keys & {caption_key(prompt) for prompt in careless["prompt"]}
    assert not test_keys & {caption_key(prompt) for prompt in train["prompt"]}
    assert len(test_keys) == len({caption_key(prompt) for prompt in train["prompt"]}) == 40
    assert train["generator"].str.startswith("transformers:").all()
    assert train["round"].max() > 1


def test_bad_answers_are_asked_again_with_other_seeds() -> None:
    answers = ["I'm sorry.", "A red bed in the room.", "A blue bed in the room.", "A green bed in the room."]
    generator = Recorded(answers)
    table = make_captions(
        "s", SplitConfig(keywords=["bed", "bunk"], count=3), GRAMMAR, seed=0, generator=generator
    ).table
    assert table["prompt"].tolist() == [answers[3], answers[1], answers[2]]
    assert table["round"].tolist() == [2, 1, 1]
    assert set(generator.keywords[3:]) == {"bed"}
    assert len(set(generator.seeds)) == len(generator.seeds)


def test_refused_captions_are_counted_by_reason() -> None:
    texts = [
        "I'm sorry, I cannot.",
        "A red bed in the room.",
        "A bat and a ball cost a dollar.",
        "A green bed by a wall.",
    ]
    split, generator = SplitConfig(keywords=["bed"], count=2), Recorded(texts)
    made = make_captions("s", split, GRAMMAR, seed=0, generator=generator)
    assert made.table["prompt"].tolist() == [texts[3], texts[1]]
    assert made.refused == {"no caption": 0.25, "lost subject": 0.25}


def test_keywords_that_no_caption_can_contain_are_refused_together_before_any_call() -> None:
    generator = Recorded([])
    keywords = ["kitchen", "a" * 151, "!?", "bed\x07room", "\ud800"]
    with pytest.raises(InputError) as caught:
        make_captions("train", SplitConfig(keywords=keywords, count=5), GRAMMAR, seed=0, generator=generator)
    message = str(caught.value)
    assert message.count("splits.train.keywords: ") == 4
    assert all(
        part in message for part in ("aaa...' has 151 characters", "'!?' names nothing", "'bed\\x07room' contains")
    )
    assert "kitchen" not in message
    assert message.isprintable()
    assert not generator.keywords


@pytest.mark.parametrize(
    "keyword",
    [
        *(
            "St. Peter church",
            "Dr. Who room",
            "U.S. bank",
            "No. 5",
            "1. kitchen",
            "my room",
            "I-beam hall",
            "click shop",
        ),
        *("captions", "one short sentence", "Acme Inc.", "walk in", "Küche", "厨房", "de la casa", "#kitchen", "a|b=c"),
        *("[draft] room", "photo: attic", '"attic"', "R&amp;D lab", "bed bed bed", "https://x.org", "wow! a room"),
        *("x" * 150, "a room of " + "very " * 26 + "old age", "\U0001f6cf\ufe0f"),
    ],
)
def test_captions_are_never_refused_or_cut_for_the_form_of_their_keyword(keyword: str) -> None:
    phrase = phrase_of(keyword)
    table = make_captions("s", SplitConfig(keywords=[keyword], count=1), GRAMMAR, seed=0).table
    assert phrase.lower() in table["prompt"][0].lower()
    assert len(table["prompt"][0]) <= 150
    assert table["round"][0] == 1


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_keyword_is_refused_immediately_or_gets_captions(keyword: str) -> None:
    try:
        refuse_unusable({"k": [keyword]}, 150)
    except InputError:
        return
    caption, reason = clean_caption(GrammarGenerator().caption(keyword, Random(0)), 150, keyword, check_language=False)
    assert not reason
    assert phrase_of(keyword).lower() in caption.lower()


def test_the_error_states_the_missing_captions_and_the_fix() -> None:
    config = PromptsConfig(generator=GrammarPrompts(), max_rounds=3)
    generator = Recorded(["A red bed in the room.", "I'm sorry, I cannot."])
    with pytest.raises(InputError) as caught:
        make_captions("train", SplitConfig(keywords=["bed", "attic"], count=4), config, seed=0, generator=generator)
    message = str(caught.value)
    assert "splits.train: 1 of 4 captions after 3 rounds" in message
    assert "bed (1 of 2)" in message
    assert "attic (0 of 2)" in message
    assert "duplicate" in message
    assert "prompts.max_rounds" in message


def test_placeholders_of_the_template() -> None:
    assert fill_template("photo of a {keyword}. {x}", "airport_terminal", 0) == "photo of an airport terminal. {x}"
    assert fill_template("photo of a {keyword}", "a watercolour of a room", 0) == "photo of a watercolour of a room"
    assert fill_template("area {keyword}", "attic", 0) == "area attic"
    first, second = (fill_template("{keyword} with {details}", "bedroom", seed) for seed in (1, 2))
    assert first.startswith("bedroom with ")
    assert "bed" in first.removeprefix("bedroom")
    assert first != second
    assert first == fill_template("{keyword} with {details}", "bedroom", 1)


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    split = SplitConfig(keywords=["bedroom"], count=6)
    make_captions("s", split, GRAMMAR, 0, progress=lambda done, total, message="": calls.append((done, total)))
    assert calls[-1] == (6, 6)


def test_the_grammar_is_built_by_name_without_torch() -> None:
    assert isinstance(build_generator(GrammarPrompts()), GrammarGenerator)
    code = "import sys, dmp_core.prompts; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
