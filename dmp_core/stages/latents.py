"""one column of the training data → VAE latents, plain and flipped: `shard-*.safetensors`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from dmp_core.dataset.reading import column_array
from dmp_core.memory import Batches
from dmp_core.modalities import Modality, find_modality
from dmp_core.modalities.settings import OwnModality
from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import (
    Coded,
    Draft,
    Inputs,
    ModelUse,
    StageKind,
    StageResult,
    base_hash,
    code_read,
    latents_name,
    learns_from,
    share,
)
from dmp_core.store import Artefact, Sample, shard_plans, shard_reader, write_shards
from dmp_core.weights.settings import BaseConfig

KIND = StageKind("latents", version=1, typical=(0.02, 10_000), on_a_gpu=(0.05, 33_000), sharded=True, chunked=True)


class LatentsStage(Coded):
    column: str
    """`image` or a modality."""
    own: OwnModality | None = since(None)
    base: BaseConfig
    base_hash: str
    flip: bool
    resolution: int | None
    batch_size: int

    def uses(self) -> Iterator[ModelUse]:
        yield ModelUse("base.model", self.base.model, self.base.revision)

    @property
    def shared(self) -> dict[str, Any]:
        """The autoencoder."""
        return self.model_dump(mode="json", include={"base", "base_hash"})


def add(draft: Draft, modality: Modality) -> None:
    """One column per node, so that a new labeler encodes no image again; images are encoded once per resolution."""
    config = draft.config
    labels = draft.get(f"labels/train-{modality.name}")
    if labels is None or learns_from(config, modality) != "latents":
        return
    images, resolution = draft["images/train"], config.latents.resolution_of(modality.name)
    for source, column in ((images, "image"), (labels, modality.name)):
        own = config.own_modalities.get(column)
        stage = LatentsStage(
            column=column,
            base=config.base,
            base_hash=base_hash(config),
            flip=config.latents.flip,
            resolution=resolution,
            own=own if source is labels else None,
            **{"depth_scale": None, "palette": None} | (code_read(config, modality) if source is labels else {}),
            batch_size=config.latents.batch_size,
        )
        draft.add(KIND, latents_name(config, modality, column), stage, {"column": source}, source.samples)


def run(
    config: LatentsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Encode every image or label of the column once; latent shards keep the column's layout."""
    from dmp_core.training.latents import empty_shard, encode_column
    from dmp_core.weights.load import choose_device, load_vae

    column = inputs["column"]
    read = shard_reader(column)
    modality = None if config.column == "image" else find_modality(config.column, config.own)
    device, fix = choose_device(runtime.device), "set a smaller latents.resolution, or runtime.device=cpu"
    batches = Batches(config.batch_size, f"{out.stage}/{out.name}", device, fix, item="one image")

    def load() -> AbstractContextManager[Any]:
        with batches.loading():
            return nullcontext(load_vae(config.base, device))

    def encode(samples: list[Sample]) -> bytes:
        if not samples:
            return empty_shard(config.column)
        return encode_column(
            vae(),
            modality or "image",
            [sample["__key__"] for sample in samples],
            (column_array(modality, sample) for sample in samples),
            batch_size=config.batch_size,
            flip=config.flip,
            code=config.code,
            resolution=config.resolution,
            batches=batches,
        )

    plans = [replace(plan, suffix="safetensors") for plan in shard_plans(column)]
    with share(KIND, config, inputs, runtime, load) as vae:
        files = write_shards(
            out,
            plans,
            lambda plan: read(plan.index),
            only=shards,
            encode=encode,
            threaded=True,
            batches=batches,
            progress=progress,
        )
    return StageResult(samples=sum(plan.planned for plan in plans), files=files)
