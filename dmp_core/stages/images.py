"""prompts → image shards: `{key}.png`, `{key}.json` and, from the renderer, `{key}.truth.npz`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.dataset.reading import read_prompts
from dmp_core.progress import Progress, silent
from dmp_core.quality.settings import QualityConfig
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import Draft, Inputs, ModelUse, StageKind, StageResult, StageSettings, share
from dmp_core.store import Artefact, FileRecord, Sample, plan_shards, read_shard, write_shards
from dmp_core.synthesis.own_images import Listing
from dmp_core.synthesis.patience import count_made_again
from dmp_core.synthesis.settings import ClipBound, DiffusionImages, FolderImages, RenderImages
from dmp_core.synthesis.sources import Row, open_source
from dmp_core.synthesis.text_to_image import check_text_to_image
from dmp_core.weights.prompt_limit import cut_prompts
from dmp_core.weights.resolve import identity

if TYPE_CHECKING:
    import pandas as pd

# Details of the prompts in the dataset's card: name in the card → column of the prompts.
_DETAIL_COLUMNS = {"keywords": "keyword", "prompts": "generator"}


KIND = StageKind("images", version=3, typical=(0.3, 60_000), on_a_gpu=(2.0, 450_000), sharded=True, chunked=True)


class ImagesStage(StageSettings):
    split: str
    count: int
    images: RenderImages | DiffusionImages | FolderImages = Field(discriminator="kind")
    samples_per_shard: int
    clip: ClipBound | None = since(None)

    @property
    def patient(self) -> bool:
        return not isinstance(self.images, FolderImages) and self.images.patience > 0

    def uses(self) -> Iterator[ModelUse]:
        if isinstance(self.images, DiffusionImages):
            yield ModelUse("images.model", self.images.model, self.images.revision)
        if self.clip is not None:
            yield ModelUse("quality.clip_model", self.clip.model)

    @property
    def shared(self) -> dict[str, Any] | None:
        """The renderer's processes, or the network; a folder is another one for every split."""
        if isinstance(self.images, FolderImages):
            return None
        return self.model_dump(mode="json", include={"images", "model_hash", "clip"})


class DiffusionImagesStage(ImagesStage):
    model_hash: str


def add(draft: Draft, split: str) -> None:
    prompts, listing = draft[f"prompts/{split}"], draft.listings.get(split)
    source = draft.config.images if listing is None else _own_images(draft.config, split, listing)
    per_shard = draft.config.shards.samples_per_shard
    clip = _clip(draft.config.quality) if listing is None and draft.config.images.patience else None
    stage = ImagesStage(split=split, count=prompts.samples, images=source, samples_per_shard=per_shard, clip=clip)
    if isinstance(source, DiffusionImages):
        check_text_to_image(source)
        known = identity(source.model, source.revision, "priors", field="images.model")
        stage = DiffusionImagesStage(**dict(stage), model_hash=known)
    draft.add(KIND, split, stage, {"prompts": prompts}, prompts.samples)


def _clip(quality: QualityConfig) -> ClipBound | None:
    model, least = quality.clip_model, quality.min_clip_score
    if model is None or least is None:
        return None
    return ClipBound(model=model, model_hash=identity(model, None, "priors", field="quality.clip_model"), least=least)


def _own_images(config: PipelineConfig, split: str, listing: Listing) -> FolderImages:
    fit = config.splits[split].fit
    return FolderImages(
        folder=str(listing.root),
        fit=fit,
        resolution=None if fit == "keep" else config.images.resolution,
        labels=list(listing.modalities),
        own_modalities={name: own for name, own in config.own_modalities.items() if name in listing.modalities},
    )


def run(
    config: ImagesStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Make one image per prompt, shard by shard."""
    table = read_prompts(inputs["prompts"])
    plans = plan_shards(table["key"], config.samples_per_shard, inputs["prompts"].published().skipped)
    by_key = table.set_index("key", drop=False)
    with share(KIND, config, inputs, runtime, lambda: open_source(config.images, runtime, config.clip)) as source:
        files = write_shards(
            out,
            plans,
            lambda plan: source().samples(rows_of(by_key.loc[[*plan.keys]])),
            only=shards,
            threaded=isinstance(config.images, DiffusionImages),
            batches=source().batches,
            bounds=runtime.on_bad_sample.bounds,
            progress=progress,
        )
    details = {name: sorted(map(str, table[column].unique())) for name, column in _DETAIL_COLUMNS.items()}
    cut = cut_prompts(config.images, table["prompt"]) if isinstance(config.images, DiffusionImages) else {}
    total = sum(plan.planned for plan in plans)
    whole = sum(record.planned for record in files) == total
    again = count_made_again(_samples(out, files)) if config.patient and whole else {}
    return StageResult(samples=total, files=files, details=details | cut | again)


def _samples(out: Artefact, files: Iterable[FileRecord]) -> Iterator[Sample]:
    """Of shards whose manifest is not written yet."""
    for record in files:
        yield from read_shard(out.workspace, out.file(record.name))


def rows_of(prompts: pd.DataFrame) -> list[Row]:
    """What these images are made from; of one shard at a time, since a dict takes several times a table's memory."""
    return [{str(name): value for name, value in row.items()} for row in prompts.to_dict("records")]
