"""one column of the training data → VAE latents, plain and flipped: `shard-*.safetensors`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.config.stages import RuntimeConfig
from dmp_core.labelers.encoding import LABEL_EXTENSIONS, decode_label
from dmp_core.progress import Progress, silent
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
    from dmp_core.training.base import choose_device, load_vae
    from dmp_core.training.latents import empty_shard, encode_column

    column = inputs["column"]
    read = shard_reader(column)
    vae = cache(lambda: load_vae(config.base, choose_device(runtime.device)))

    def encode(samples: list[Sample]) -> bytes:
        if not samples:
            return empty_shard(config.column)
        return encode_column(
            vae(),
            config.column,  # type: ignore[arg-type]  # `image` or a task; plan() makes no other
            [sample["__key__"] for sample in samples],
            (column_array(config.column, sample) for sample in samples),
            batch_size=config.batch_size,
            flip=config.flip,
            depth_scale=config.depth_scale,
            palette=config.palette,
            resolution=config.resolution,
        )

    plans = [replace(plan, suffix="safetensors") for plan in shard_plans(column)]
    files = write_shards(
        out, plans, lambda plan: read(plan.index), only=shards, encode=encode, threaded=True, progress=progress
    )
    return StageResult(samples=sum(plan.planned for plan in plans), files=files)


def column_array(column: str, sample: Sample) -> NDArray[Any]:
    """The array of one sample: RGB uint8 (H, W, 3) for `image`, else the task's label."""
    if column == "image":
        return np.asarray(open_image(sample["png"], ("PNG",)).convert("RGB"))
    for task, extension in LABEL_EXTENSIONS.items():
        if task == column:
            return decode_label(task, sample[extension])
    raise KeyError(column)


def same_size_batches(samples: Iterable[Sample], column: str, size: int) -> Iterator[list[tuple[str, NDArray[Any]]]]:
    """Neighbours of one size, at most `size` of them; order is kept."""
    batch: list[tuple[str, NDArray[Any]]] = []
    for sample in samples:
        array = column_array(column, sample)
        if batch and (len(batch) == size or batch[0][1].shape != array.shape):
            yield batch
            batch = []
        batch.append((sample["__key__"], array))
    if batch:
        yield batch
