"""One split's captions: generate them, clean them, and try again for missing ones."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

import pandas as pd

from dmp_core.dataset.settings import SplitConfig
from dmp_core.errors import InputError
from dmp_core.progress import Progress, silent
from dmp_core.prompts.base import CaptionGenerator, build_generator
from dmp_core.prompts.cleanup import caption_key, clean_caption
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.keywords import split_keywords
from dmp_core.prompts.settings import PromptsConfig
from dmp_core.prompts.subject import refuse_unusable
from dmp_core.store import Bounds, SkipCount, Skipped, sample_key, sample_seed
from dmp_core.text import one_line

_AT_ONCE = 256  # captions generated per call: the most that a killed run loses
# Several candidates rarely all fail, and a batch costs little more than one row.
_MAX_CANDIDATES = 8


@dataclass(frozen=True)
class Captions:
    """The captions of one split, and the shares of refused ones."""

    table: pd.DataFrame
    refused: dict[str, float]
    """Reason → share of all captions that were checked."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Key → reason of every sample without a caption."""


def make_captions(
    split_name: str,
    split: SplitConfig,
    config: PromptsConfig,
    seed: int,
    exclude: Collection[str] = (),
    *,
    generator: CaptionGenerator | None = None,
    device: str = "auto",
    bounds: Bounds | None = None,
    progress: Progress = silent,
) -> Captions:
    """The captions of one split, in the order of their keys.

    Columns: key (`<split>-<index:08d>`), split, keyword (as given), prompt (at most
    `config.max_characters` characters), seed (int64, the image's), generator, round (1 = the first try).
    Keywords alternate, so their counts differ by at most one; of more keywords than
    captions, a fair sample drawn by `seed`. No two prompts are equal, and none equals one in
    `exclude` (ignoring case and punctuation), which separates train and test.
    bounds: how many samples may have no caption after `config.max_rounds` rounds; None: no sample.
    Raises InputError if a keyword fits into no caption, or more captions are missing than that.
    """
    keywords = _take_turns(split_name, split, seed)
    refuse_unusable({f"splits.{split_name}.keywords": dict.fromkeys(keywords)}, config.max_characters)
    generator = generator or build_generator(config.generator, device)
    taken = {caption_key(prompt) for prompt in exclude}
    wanted = _Wanted(split_name, keywords, config.max_characters, taken, generator.name != GrammarGenerator.name)
    weighed = {"vary": config.vary} if config.vary else {}
    for round_number in range(1, config.max_rounds + 1):
        tries = product(wanted.missing(), range(min(2 ** (round_number - 1), _MAX_CANDIDATES)))
        while part := list(islice(tries, _AT_ONCE)):
            asked = [keywords[index] for index, _ in part]
            places = (f"{sample_key(split_name, index)}/caption/{round_number}/{nth}" for index, nth in part)
            seeds = [sample_seed(seed, place) for place in places]
            texts = generator.generate(asked, config.template, seeds, **weighed)
            for (index, _), raw in zip(part, texts, strict=True):
                wanted.offer(index, raw, round_number)
            progress(wanted.count, len(keywords))
        if not wanted.missing():
            return Captions(wanted.table(seed, generator.name), wanted.refused())
    if bounds is None:
        raise InputError(wanted.complaint(config))
    wanted.skip_missing(bounds, config.max_rounds)
    return Captions(wanted.table(seed, generator.name), wanted.refused(), wanted.skipped)


def _take_turns(split_name: str, split: SplitConfig, seed: int) -> list[str]:
    """The keyword of each sample."""
    keywords = split_keywords(split_name, split.keywords, split.keywords_file)
    assert split.count is not None
    if split.count < len(keywords):
        return random.Random(sample_seed(seed, f"{split_name}/keywords")).sample(keywords, split.count)
    return [keywords[index % len(keywords)] for index in range(split.count)]


@dataclass
class _Wanted:
    """The split and its captions so far."""

    split_name: str
    keywords: Sequence[str]
    max_characters: int
    taken: set[str]
    """Caption keys that must not occur (again)."""
    check_language: bool
    """Whether to check the language outside the keywords; the grammar's is English."""
    captions: list[str] = field(init=False)
    """Of each sample, empty where it is missing."""
    rounds: array[int] = field(init=False)
    """In which they were made."""
    count: int = 0
    """How many samples have a caption."""
    dropped: Counter[str] = field(default_factory=Counter)
    reasons: dict[int, str] = field(default_factory=dict)
    """Sample index → why its last caption was dropped."""
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.captions = [""] * len(self.keywords)
        self.rounds = array("q", [0]) * len(self.keywords)

    def missing(self) -> list[int]:
        return [index for index, caption in enumerate(self.captions) if not caption]

    def offer(self, index: int, raw: str, round_number: int) -> None:
        if self.captions[index]:
            return
        keyword = self.keywords[index]
        caption, reason = clean_caption(raw, self.max_characters, keyword, check_language=self.check_language)
        key = caption_key(caption)
        if caption and key in self.taken:
            reason = "duplicate"
        if reason:
            self.dropped[reason] += 1
            self.reasons[index] = reason
            return
        self.taken.add(key)
        self.captions[index], self.rounds[index] = caption, round_number
        self.count += 1

    def refused(self) -> dict[str, float]:
        checked = self.count + self.dropped.total()
        return {reason: round(number / checked, 4) for reason, number in self.dropped.most_common()}

    def skip_missing(self, bounds: Bounds, rounds: int) -> None:
        """Skip the samples without a caption. Raises InputError above the bounds."""
        count = SkipCount(f"prompts/{self.split_name}", len(self.keywords), bounds)
        for index, keyword in enumerate(self.keywords):
            if self.captions[index]:
                count.good()
            else:
                last = self.reasons.get(index, "empty")
                reason = one_line(f"no caption of {keyword!r} in {rounds} rounds; the last one was refused: {last}")
                count.bad(Skipped(sample_key(self.split_name, index), reason))
        self.skipped = count.skipped

    def table(self, seed: int, generator: str) -> pd.DataFrame:
        indices = [index for index, caption in enumerate(self.captions) if caption]
        keys = [sample_key(self.split_name, index) for index in indices]
        return pd.DataFrame(
            {
                "key": keys,
                "split": self.split_name,
                "keyword": [self.keywords[index] for index in indices],
                "prompt": [self.captions[index] for index in indices],
                "seed": pd.Series([sample_seed(seed, key) for key in keys], dtype="int64"),
                "generator": generator,
                "round": pd.Series([self.rounds[index] for index in indices], dtype="int64"),
            }
        )

    def complaint(self, config: PromptsConfig) -> str:
        """The missing captions, the reasons, and the fix."""
        short = Counter(self.keywords[index] for index in self.missing())
        total = Counter(self.keywords)
        some = ", ".join(f"{word} ({total[word] - n} of {total[word]})" for word, n in islice(short.items(), 5))
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        why = ", ".join(f"{reason} {n}" for reason, n in self.dropped.most_common())
        name, made, count = self.split_name, self.count, len(self.keywords)
        return (
            f"splits.{name}: {made} of {count} captions after {config.max_rounds} rounds; short for {some}{more}; "
            f"dropped: {why}. Fix: a smaller splits.{name}.count or more keywords, a higher prompts.max_rounds, "
            "another prompts.template or generator, or prompts.generator.kind=grammar"
        )
