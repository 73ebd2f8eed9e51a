"""keywords, or a folder of images → prompts.parquet"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dmp_core.dataset.settings import SplitConfig
from dmp_core.progress import Progress, silent
from dmp_core.prompts import ResumableGenerator, build_generator, make_captions
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.node import FolderPromptsStage, PromptsStage
from dmp_core.store import Artefact, staged_folder
from dmp_core.synthesis.listing import prompts_table, read_folder
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.weights.settings import BaseConfig

logger = logging.getLogger(__name__)
FILE = "prompts.parquet"


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

    What a killed run has been answered is not asked for again.
    """
    if isinstance(config, FolderPromptsStage):
        table, skipped = _of_folder(config, runtime)
        out.write_bytes(FILE, table.to_parquet(index=False))
        # By this another folder of the same name is known for one; the dataset itself names no folder of this machine.
        folder = str(Path(str(config.source.folder)).resolve())
        return StageResult(samples=len(table), details={"folder": folder, **_told(skipped)})
    exclude = {prompt for artefact in inputs.values() for prompt in read_prompts(artefact)["prompt"]}
    split = SplitConfig(keywords=config.keywords, count=config.count)
    generator = build_generator(config.prompts.generator, runtime.device)
    bounds = runtime.on_bad_sample.bounds
    with staged_folder(out) as place:
        kept = ResumableGenerator(generator, place / ".answers.jsonl")
        made = make_captions(
            config.split, split, config.prompts, config.seed, exclude, generator=kept, bounds=bounds, progress=progress
        )
        made.table.to_parquet(place / FILE, index=False)
    refused = {"refused": made.refused} if made.refused else {}
    details = {"generator": generator.name, **refused, **getattr(generator, "facts", {})}
    return StageResult(samples=len(made.table), details=details | _told(made.skipped))


def _told(skipped: Mapping[str, str]) -> dict[str, Any]:
    return {"skipped": dict(skipped)} if skipped else {}


def _of_folder(config: FolderPromptsStage, runtime: RuntimeConfig) -> tuple[pd.DataFrame, dict[str, str]]:
    """Decodes every file once, so that a broken one is known before any work is done on the others.

    Returns the table, and key → reason of every image that is skipped.
    """
    from dmp_core.synthesis.folder import check_folder

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


def cut_prompts(model: BaseConfig | DiffusionImages, prompts: Iterable[str]) -> dict[str, int]:
    """For the manifest: how many prompts the model reads in part only, being longer than its text encoders' limit."""
    from dmp_core.diffusion.text import count_cut
    from dmp_core.weights.load import load_tokenizers

    texts, tokenizers = list(prompts), load_tokenizers(model)
    cut = min((count_cut(tokenizer, texts) for tokenizer in tokenizers), default=0)
    if not cut:
        return {}
    limit = max(tokenizer.model_max_length for tokenizer in tokenizers)
    logger.warning("%d of %d prompts are longer than the %d tokens that %s reads", cut, len(texts), limit, model.model)
    return {"prompts_cut": cut}


def read_prompts(artefact: Artefact) -> pd.DataFrame:
    """Columns key, split, keyword, prompt, seed … of a finished prompts artefact."""
    return pd.read_parquet(io.BytesIO(artefact.read_input(FILE)))
