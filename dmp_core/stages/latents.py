"""one column of the training data → VAE latents, plain and flipped: `shard-*.safetensors`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.modalities import Modality, find_modality
from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.node import LatentsStage
from dmp_core.store import Artefact, Sample, open_image, shard_plans, shard_reader, write_shards

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    vae = cache(lambda: load_vae(config.base, choose_device(runtime.device)))

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
        )

    plans = [replace(plan, suffix="safetensors") for plan in shard_plans(column)]
    files = write_shards(
        out, plans, lambda plan: read(plan.index), only=shards, encode=encode, threaded=True, progress=progress
    )
    return StageResult(samples=sum(plan.planned for plan in plans), files=files)


def column_array(modality: Modality | None, sample: Sample) -> NDArray[Any]:
    """The array of one sample: its label, or, of None, its image as RGB uint8 (H, W, 3)."""
    if modality is None:
        return np.asarray(open_image(sample["png"], ("PNG",)).convert("RGB"))
    return modality.decode(sample[modality.member])


def same_size_batches(
    samples: Iterable[Sample], modality: Modality | None, size: int
) -> Iterator[list[tuple[str, NDArray[Any]]]]:
    """Neighbours of one size, at most `size` of them; order is kept. modality: as in `column_array`."""
    batch: list[tuple[str, NDArray[Any]]] = []
    for sample in samples:
        array = column_array(modality, sample)
        if batch and (len(batch) == size or batch[0][1].shape != array.shape):
            yield batch
            batch = []
        batch.append((sample["__key__"], array))
    if batch:
        yield batch
