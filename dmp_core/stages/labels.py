"""image shards → one column of label shards: `{key}.normal.png`, `{key}.depth.npy` …

With `check_flip` also `{key}.<task>.flip.json`: how far the labels of an image and of its mirrored copy are apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.config.stages import ModelLabels, RuntimeConfig, Task
from dmp_core.errors import InputError, NotFinite
from dmp_core.labelers.encoding import encode_label, png_bytes
from dmp_core.labelers.exact import unpack_truth
from dmp_core.labelers.registry import Labeler, build_labeler, labeler_options
from dmp_core.models.shipped import resolve_model
from dmp_core.progress import Progress, silent
from dmp_core.quality.labels import flip_difference
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.latents import column_array, same_size_batches
from dmp_core.stages.node import LabelsStage
from dmp_core.store import Artefact, Sample, ShardPlan, canonical_json, shard_plans, shard_reader, write_shards

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
    check_flip = isinstance(config.labeler, ModelLabels) and config.labeler.check_flip

    def produce(plan: ShardPlan) -> Iterator[Sample]:
        samples = read(plan.index)
        mirrored = label([_mirrored(sample) for sample in samples]) if check_flip else None
        for key, array in label(samples):
            try:
                extension, data = encode_label(config.task, array)
            except InputError as error:
                raise InputError(f"{key}: {error}") from None
            sample = {"__key__": key, extension: data}
            if mirrored is not None:
                difference = flip_difference(config.task, array, next(mirrored)[1])
                sample[f"{config.task}.flip.json"] = canonical_json(difference).encode()
            yield sample

    threaded = isinstance(config.labeler, ModelLabels)
    files = write_shards(out, shard_plans(images), produce, only=shards, threaded=threaded, progress=progress)
    return StageResult(samples=images.published().samples, files=files)


def _mirrored(sample: Sample) -> Sample:
    return sample | {"png": png_bytes(column_array("image", sample)[:, ::-1])}


def _labeler(config: LabelsStage, runtime: RuntimeConfig) -> Callable[[list[Sample]], Labels]:
    if isinstance(config.labeler, ModelLabels):
        return _by_model(config.task, config.labeler, runtime)

    def exact(samples: list[Sample]) -> Labels:
        for sample in samples:
            yield sample["__key__"], unpack_truth(sample["truth.npz"])[config.task]

    return exact


def _by_model(task: Task, settings: ModelLabels, runtime: RuntimeConfig) -> Callable[[list[Sample]], Labels]:
    import torch

    labeler = cache(lambda: _built(task, settings, runtime))

    def predicted(samples: list[Sample]) -> Labels:
        for batch in same_size_batches(samples, "image", settings.batch_size):
            pixels = torch.from_numpy(np.stack([image for _, image in batch])).permute(0, 3, 1, 2)
            keys = [key for key, _ in batch]
            try:
                answer = labeler()(pixels.float() / 255)
            except NotFinite as error:
                raise error.named(keys) from None
            if task not in answer:
                made = ", ".join(answer)
                raise InputError(f"labels.{task}.kind: {settings.kind!r} makes {made}; choose a labeler for {task}")
            labels = answer[task].cpu().numpy()
            labels = np.moveaxis(labels, 1, -1) if labels.ndim == 4 else labels
            yield from zip(keys, labels, strict=True)

    return predicted


def _built(task: Task, settings: ModelLabels, runtime: RuntimeConfig) -> Labeler:
    from dmp_core.training.base import choose_device

    taken = labeler_options(settings.kind)
    own: dict[str, Any] = {"batch_size": settings.batch_size, "dtype": settings.dtype}
    unknown = sorted(name for name in settings.options if name in own or (taken is not None and name not in taken))
    if unknown:
        known = "anything" if taken is None else ", ".join(sorted(taken - own.keys())) or "none"
        raise InputError(
            f"labels.{task}.options: labeler {settings.kind!r} takes no {', '.join(unknown)} there; it takes: {known}"
        )
    located = resolve_model(settings.weights, f"labels.{task}.weights")
    own |= {"revision": located.revision} if located.revision else {}
    given = {name: value for name, value in own.items() if taken is None or name in taken}
    return build_labeler(settings.kind, located.place, choose_device(runtime.device), **given, **settings.options)
