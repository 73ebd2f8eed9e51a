"""fitted method + images → predictions in the label's own encoding; or the VAE ceiling of the labels"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.errors import NotFinite
from dmp_core.methods.protocol import Inference, Predictor, Problem
from dmp_core.methods.registry import find_method
from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.editor import editor_of
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.latents import same_size_batches
from dmp_core.stages.node import PredictStage
from dmp_core.stages.prompts import cut_prompts, read_prompts
from dmp_core.store import Artefact, Sample, ShardPlan, Skipped, shard_plans, shard_reader, write_shards
from dmp_core.store.attempts import batch_or_each

if TYPE_CHECKING:
    from numpy.typing import NDArray

Batch = Sequence[tuple[str, "NDArray[Any]"]]
"""(key, array) of neighbours of one size."""


def run(
    config: PredictStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Predict one modality on one split, a shard at a time, in batches."""
    of_labels = config.row == "ceiling"
    predictor = _ceiling(config, runtime) if of_labels else _fitted(config, inputs, runtime)
    modality = config.modality
    column, source = (modality, inputs["labels"]) if of_labels else (None, inputs["images"])
    read = shard_reader(source)

    def predicted(batch: Batch) -> list[Sample]:
        keys = [key for key, _ in batch]
        try:
            labels = predictor()(np.stack([array for _, array in batch]), keys)
            check_labels(labels)
        except NotFinite as error:
            raise error.named(keys) from None
        return [
            {"__key__": key, modality.member: modality.encode(label)} for key, label in zip(keys, labels, strict=True)
        ]

    def produce(plan: ShardPlan) -> Iterator[Sample | Skipped]:
        for batch in same_size_batches(read(plan.index), column, config.sampling.batch_size):
            predictor()  # what fails here is not about a sample
            yield from batch_or_each(batch, [key for key, _ in batch], predicted, skips=runtime.on_bad_sample.skips)

    plans = shard_plans(source)
    files = write_shards(
        out, plans, produce, only=shards, threaded=True, bounds=runtime.on_bad_sample.bounds, progress=progress
    )
    asked = config.sampling.use_prompt and not of_labels
    cut = cut_prompts(config.base, read_prompts(inputs["prompts"])["prompt"]) if asked else {}
    return StageResult(samples=sum(plan.planned for plan in plans), files=files, details=cut)


def check_labels(labels: NDArray[Any]) -> None:
    """Raise `NotFinite` for a method of others that does not check what its network answers."""
    for index, label in enumerate(labels):
        if not np.isfinite(label).all():
            raise NotFinite(index, "the prediction holds NaN or infinity; is the fitted method damaged?")


def _fitted(config: PredictStage, inputs: Inputs, runtime: RuntimeConfig) -> Callable[[], Predictor]:
    from dmp_core.weights.load import choose_device

    captions: dict[str, str] = {}
    if config.sampling.use_prompt:
        table = read_prompts(inputs["prompts"])
        captions = dict(zip(table["key"], table["prompt"], strict=True))

    @cache
    def fitted() -> Predictor:
        classes = inputs["adapter"].published().details.get("classes")
        return find_method(config.row).load(
            inputs["adapter"].local_path(),
            Problem(
                config.modality,
                config.base,
                config.code,
                editor_of(config, inputs),
                tuple(classes) if classes else None,
            ),
            Inference(config.sampling, config.resolution, captions, config.inference),
            device=choose_device(runtime.device),
        )

    return fitted


def _ceiling(config: PredictStage, runtime: RuntimeConfig) -> Callable[[], Predictor]:
    from dmp_core.methods.dmp.predict import vae_ceiling
    from dmp_core.weights.load import choose_device, load_vae

    @cache
    def fitted() -> Predictor:
        vae = load_vae(config.base, choose_device(runtime.device))
        return lambda labels, keys: vae_ceiling(
            vae,
            labels,
            config.modality,
            code=config.code,
            resolution=config.resolution,
        )

    return fitted
