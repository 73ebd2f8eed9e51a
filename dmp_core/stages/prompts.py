"""keywords, or a folder of images → prompts.parquet"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from dmp_core.dataset.reading import PROMPTS_FILE, read_prompts
from dmp_core.dataset.settings import SplitConfig
from dmp_core.keywords.former import meanings
from dmp_core.modalities import Modality
from dmp_core.modalities.base import Axes
from dmp_core.modalities.registry import modalities_of, with_axes
from dmp_core.modalities.settings import OwnModality
from dmp_core.progress import Progress, silent
from dmp_core.prompts import ResumableGenerator, build_generator, make_captions
from dmp_core.prompts.cleanup import RULES, same_by_first_rules
from dmp_core.prompts.settings import GrammarPrompts, PromptsConfig, TransformersPrompts, VLLMPrompts
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import Draft, Inputs, ModelUse, Node, StageKind, StageResult, StageSettings, pinned
from dmp_core.store import Artefact, staged_folder
from dmp_core.synthesis.listing import prompts_table, read_folder

# Captions of a language model that pass both the first clean-up rules and today's: they have not changed.
_MEASURED = frozenset({"240684b76df6"})  # the preset mini's in_domain, with SmolLM2

KIND = StageKind("prompts", version=2, typical=(0.45, 200), on_a_gpu=(0.05, 200))


class PromptsStage(StageSettings):
    split: str
    keywords: list[str]
    count: int
    prompts: PromptsConfig
    seed: int
    clean_up: int | None = since(None)
    """`cleanup.RULES` if these can give other captions than the first rules; else None."""
    meanings: int | None = since(None)
    """`keywords.meaning.MEANINGS`, where a keyword means another place than by the first rules; else None."""

    def uses(self) -> Iterator[ModelUse]:
        generator = self.prompts.generator
        if not (isinstance(generator, VLLMPrompts) and generator.server_url):  # the server loads it
            yield from _writer(self)


class PinnedPromptsStage(PromptsStage):
    """With a language model of the registry."""

    model_hash: str


class FolderPromptsStage(StageSettings):
    split: str
    source: SplitConfig = Field(exclude=True)
    """The folder with the files. Not part of the fingerprint: `digest` is."""
    own_modalities: dict[str, OwnModality] = Field(default={}, exclude=True)
    """Modalities that its labels may have, in addition to the built-in ones."""
    file_axes: dict[str, Axes] = Field(default={}, exclude=True)
    """As in `PipelineConfig`."""
    digest: str
    """Of names and contents of the images, their captions and their labels."""
    seed: int

    @property
    def modalities(self) -> list[Modality]:
        found = modalities_of({"own_modalities": self.own_modalities})
        return [with_axes(m, self.file_axes.get(m.name, m.file_axes)) for m in found]


def add(draft: Draft, split: str) -> None:
    """Captions of a split, or the table that takes their place for a folder of images.

    The training split comes last and excludes the prompts of every test split that shares a keyword with it: so test
    sets do not change when the training set grows.
    """
    if split in draft.listings:
        _add_listing(draft, split)
        return
    config, keywords = draft.config, draft.keywords
    count = config.splits[split].count
    assert count is not None
    shared = [name for name in keywords if name != split and set(keywords[name]) & set(keywords[split])]
    exclude = {f"exclude_{name}": draft[f"prompts/{name}"] for name in shared} if split == "train" else {}
    for reference in config.splits[split].exclude:
        name, _, known = reference.rpartition("-")
        exclude[f"exclude_{name}"] = Node(KIND, name, StageSettings(), given=known)
    stage = PromptsStage(split=split, keywords=keywords[split], count=count, prompts=config.prompts, seed=config.seed)
    settings = pinned(stage, PinnedPromptsStage, _writer(stage))
    if not _judged_alike(stage) and Node(KIND, split, settings, exclude).fingerprint not in _MEASURED:
        settings = settings.model_copy(update={"clean_up": RULES})
    settings = settings.model_copy(update={"meanings": meanings(stage.keywords)})
    draft.add(KIND, split, settings, exclude, count)


def _writer(stage: PromptsStage) -> Iterator[ModelUse]:
    """The language model, wherever it runs; none for a grammar."""
    match stage.prompts.generator:
        case TransformersPrompts() as llm:
            yield ModelUse("prompts.generator.model", llm.model, llm.revision, llm.gguf_file or "")
        case VLLMPrompts() as llm:
            yield ModelUse("prompts.generator.model", llm.model, llm.revision)


def _judged_alike(stage: PromptsStage) -> bool:
    """Whether the first clean-up rules give the same captions, so that they keep their fingerprint."""
    grammar, longest = isinstance(stage.prompts.generator, GrammarPrompts), stage.prompts.max_characters
    return grammar and all(same_by_first_rules(keyword, longest) for keyword in stage.keywords)


def _add_listing(draft: Draft, split: str) -> None:
    config, listing = draft.config, draft.listings[split]
    stage = FolderPromptsStage(
        split=split,
        source=config.splits[split],
        own_modalities=config.own_modalities,
        file_axes=config.file_axes,
        digest=listing.digest,
        seed=config.seed,
    )
    draft.add(KIND, split, stage, {}, len(listing.images))


def run(
    config: PromptsStage | FolderPromptsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Write the captions of one split; those of the splits given as inputs are not used again.

    Answers that a killed run has received are not requested again.
    """
    if isinstance(config, FolderPromptsStage):
        table, skipped = _of_folder(config, runtime)
        out.write_bytes(PROMPTS_FILE, table.to_parquet(index=False))
        # This distinguishes folders of the same name; the dataset itself contains no path of this machine.
        folder = str(Path(str(config.source.folder)).resolve())
        return StageResult(samples=len(table), details={"folder": folder, **_skip_details(skipped)})
    exclude = {prompt for artefact in inputs.values() for prompt in read_prompts(artefact)["prompt"]}
    split = SplitConfig(keywords=config.keywords, count=config.count)
    generator = build_generator(config.prompts.generator, runtime.device)
    bounds = runtime.on_bad_sample.bounds
    with staged_folder(out) as place:
        kept = ResumableGenerator(generator, place / ".answers.jsonl")
        made = make_captions(
            config.split, split, config.prompts, config.seed, exclude, generator=kept, bounds=bounds, progress=progress
        )
        made.table.to_parquet(place / PROMPTS_FILE, index=False)
    refused = {"refused": made.refused} if made.refused else {}
    details = {"generator": generator.name, **refused, **getattr(generator, "facts", {})}
    return StageResult(samples=len(made.table), details=details | _skip_details(made.skipped))


def _skip_details(skipped: Mapping[str, str]) -> dict[str, Any]:
    return {"skipped": dict(skipped)} if skipped else {}


def _of_folder(config: FolderPromptsStage, runtime: RuntimeConfig) -> tuple[pd.DataFrame, dict[str, str]]:
    """Decodes every file once, so that broken files are found before any other work.

    Returns the table, and key → reason of every image that is skipped.
    """
    from dmp_core.synthesis.checking import check_folder

    source, choice = config.source, runtime.on_bad_sample
    listing = read_folder(
        str(source.folder), source.share, source.count, keeps_broken=choice.skips, modalities=config.modalities
    )
    bad = check_folder(listing, choice.bounds)
    table = prompts_table(listing, config.split, config.seed)
    if not bad:
        return table, {}
    broken = table["file"].isin(list(bad))
    places = zip(table["key"][broken].astype(str), table["file"][broken].astype(str), strict=True)
    skipped = {key: f"{file}: {bad[file]}" for key, file in places}
    return table[~broken].reset_index(drop=True), skipped
