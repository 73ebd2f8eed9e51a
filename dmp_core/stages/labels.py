"""image shards → one column of label shards: `{key}.normal.png`, `{key}.depth.npy` …"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.config.stages import ModelLabels, RuntimeConfig, Task
from dmp_core.errors import InputError
from dmp_core.labelers.encoding import encode_label
from dmp_core.labelers.exact import unpack_truth
from dmp_core.labelers.registry import build_labeler
from dmp_core.progress import Progress, silent
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.latents import same_size_batches
from dmp_core.stages.plan import LabelsStage
from dmp_core.store import Artefact, Sample, ShardPlan, shard_plans, shard_reader, write_shards

if TYPE_CHECKING:
    from numpy.typing import NDArray

Labels = Iterator[tuple[str, "NDArray[Any]"]]
"""(key, label in the dataset's units) of every sample."""


def run(
    config: LabelsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Label every image shard; label shards keep the images' layout."""
    images = inputs["images"]
    read, label = shard_reader(images), _labeler(config, runtime)

    def produce(plan: ShardPlan) -> Iterator[Sample]:
        for key, array in label(read(plan.index)):
            extension, data = encode_label(config.task, array)
            yield {"__key__": key, extension: data}

    files = write_shards(out, shard_plans(images), produce, only=shards, progress=progress)
    return StageResult(samples=images.published().samples, files=files)


def _labeler(config: LabelsStage, runtime: RuntimeConfig) -> Callable[[list[Sample]], Labels]:
    if isinstance(config.labeler, ModelLabels):
        return _by_model(config.task, config.labeler, runtime)

    def exact(samples: list[Sample]) -> Labels:
        for sample in samples:
            yield sample["__key__"], unpack_truth(sample["truth.npz"])[config.task]

    return exact


def _by_model(task: Task, settings: ModelLabels, runtime: RuntimeConfig) -> Callable[[list[Sample]], Labels]:
    import torch

    from dmp_core.training.base import choose_device

    labeler = build_labeler(settings.kind, settings.weights, choose_device(runtime.device), dtype=settings.dtype)

    def predicted(samples: list[Sample]) -> Labels:
        for batch in same_size_batches(samples, "image", settings.batch_size):
            pixels = torch.from_numpy(np.stack([image for _, image in batch])).permute(0, 3, 1, 2)
            answer = labeler(pixels.float() / 255)
            if task not in answer:
                made = ", ".join(answer)
                raise InputError(f"labels.{task}.kind: {settings.kind!r} makes {made}; choose a labeler for {task}")
            labels = answer[task].cpu().numpy()
            labels = np.moveaxis(labels, 1, -1) if labels.ndim == 4 else labels
            yield from zip((key for key, _ in batch), labels, strict=True)

    return predicted
