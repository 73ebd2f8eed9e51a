"""prompts → image shards: `{key}.png`, `{key}.json` and, from the renderer, `{key}.truth.npz`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.dataset.reading import read_prompts
from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.base import Draft, Inputs, ModelUse, StageKind, StageResult, StageSettings, share
from dmp_core.store import Artefact, ShardPlan, plan_shards, write_shards
from dmp_core.synthesis.own_images import Listing
from dmp_core.synthesis.settings import DiffusionImages, FolderImages, RenderImages
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

    def uses(self) -> Iterator[ModelUse]:
        if isinstance(self.images, DiffusionImages):
            yield ModelUse("images.model", self.images.model, self.images.revision)

    @property
    def shared(self) -> dict[str, Any] | None:
        """The renderer's processes, or the network; a folder is another one for every split."""
        if isinstance(self.images, FolderImages):
            return None
        return self.model_dump(mode="json", include={"images", "model_hash"})


class DiffusionImagesStage(ImagesStage):
    model_hash: str


def add(draft: Draft, split: str) -> None:
    prompts, listing = draft[f"prompts/{split}"], draft.listings.get(split)
    source = draft.config.images if listing is None else _own_images(draft.config, split, listing)
    per_shard = draft.config.shards.samples_per_shard
    stage = ImagesStage(split=split, count=prompts.samples, images=source, samples_per_shard=per_shard)
    if isinstance(source, DiffusionImages):
        check_text_to_image(source)
        known = identity(source.model, source.revision, "priors", field="images.model")
        stage = DiffusionImagesStage(**dict(stage), model_hash=known)
    draft.add(KIND, split, stage, {"prompts": prompts}, prompts.samples)


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
    ends = [*accumulate(len(plan.keys) for plan in plans)]

    def rows(plan: ShardPlan) -> list[Row]:
        return rows_of(table[ends[plan.index] - len(plan.keys) : ends[plan.index]])

    with share(KIND, config, inputs, runtime, lambda: open_source(config.images, runtime)) as source:
        files = write_shards(
            out,
            plans,
            lambda plan: source().samples(rows(plan)),
            only=shards,
            threaded=isinstance(config.images, DiffusionImages),
            batches=source().batches,
            bounds=runtime.on_bad_sample.bounds,
            progress=progress,
        )
    details = {name: sorted(map(str, table[column].unique())) for name, column in _DETAIL_COLUMNS.items()}
    cut = cut_prompts(config.images, table["prompt"]) if isinstance(config.images, DiffusionImages) else {}
    return StageResult(samples=sum(plan.planned for plan in plans), files=files, details=details | cut)


def rows_of(prompts: pd.DataFrame) -> list[Row]:
    """What these images are made from; of one shard at a time, since a dict takes several times a table's memory."""
    return [{str(name): value for name, value in row.items()} for row in prompts.to_dict("records")]
