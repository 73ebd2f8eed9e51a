"""image shards → one column of label shards: `{key}.normal.png`, `{key}.depth.npy` …"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dmp_core.config.stages import RuntimeConfig
from dmp_core.errors import InputError
from dmp_core.labelers.encoding import encode_label
from dmp_core.labelers.exact import unpack_truth
from dmp_core.progress import Progress, silent
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.plan import LabelsStage
from dmp_core.store import Artefact, Sample, ShardPlan, shard_plans, shard_reader, write_shards


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
    if config.labeler.kind != "exact":
        raise InputError(
            f"labels.{config.task}.kind: {config.labeler.kind!r} is not built in this version; use `exact`"
        )
    images = inputs["images"]
    read = shard_reader(images)

    def produce(plan: ShardPlan) -> Iterator[Sample]:
        for sample in read(plan.index):
            extension, data = encode_label(config.task, unpack_truth(sample["truth.npz"])[config.task])
            yield {"__key__": sample["__key__"], extension: data}

    files = write_shards(out, shard_plans(images), produce, only=shards, progress=progress)
    return StageResult(samples=images.published().samples, files=files)
