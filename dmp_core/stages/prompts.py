"""keywords, or a folder of images → prompts.parquet"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from dmp_core.config.stages import BaseConfig, DiffusionImages, RuntimeConfig, SplitConfig
from dmp_core.progress import Progress, silent
from dmp_core.prompts import ResumableGenerator, build_generator, make_captions
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.node import FolderPromptsStage, PromptsStage
from dmp_core.store import Artefact, staged_folder
from dmp_core.synthesis.listing import prompts_table, read_folder

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
        table = _of_folder(config)
        out.write_bytes(FILE, table.to_parquet(index=False))
        # By this another folder of the same name is known for one; the dataset itself names no folder of this machine.
        return StageResult(samples=len(table), details={"folder": str(Path(str(config.source.folder)).resolve())})
    exclude = {prompt for artefact in inputs.values() for prompt in read_prompts(artefact)["prompt"]}
    split = SplitConfig(keywords=config.keywords, count=config.count)
    generator = build_generator(config.prompts.generator, runtime.device)
    with staged_folder(out) as folder:
        kept = ResumableGenerator(generator, folder / ".answers.jsonl")
        made = make_captions(
            config.split, split, config.prompts, config.seed, exclude, generator=kept, progress=progress
        )
        made.table.to_parquet(folder / FILE, index=False)
    refused = {"refused": made.refused} if made.refused else {}
    details = {"generator": generator.name, **refused, **getattr(generator, "facts", {})}
    return StageResult(samples=len(made.table), details=details)


def _of_folder(config: FolderPromptsStage) -> pd.DataFrame:
    """Decodes every file once, so that a broken one is known before any work is done on the others."""
    from dmp_core.synthesis.folder import check_folder

    source = config.source
    listing = read_folder(str(source.folder), source.share, source.count)
    check_folder(listing)
    return prompts_table(listing, config.split, config.seed)


def cut_prompts(model: BaseConfig | DiffusionImages, prompts: Iterable[str]) -> dict[str, int]:
    """For the manifest: how many prompts the model reads in part only, being longer than its text encoders' limit."""
    from dmp_core.diffusion.text import count_cut
    from dmp_core.training.base import load_tokenizers

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
