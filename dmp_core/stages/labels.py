"""image shards → one column of label shards: `{key}.normal.png`, `{key}.depth.npy` …

With `check_flip` also `{key}.<modality>.flip.json`: how much the labels of an image and of its mirrored copy differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.dataset.reading import same_size_batches
from dmp_core.dataset.truth import unpack_truth
from dmp_core.errors import InputError, NotFinite, WrongSetting
from dmp_core.labelers.registry import Labeler, build_labeler, labeler_options
from dmp_core.labelers.settings import ExactLabels, LabelsConfig, ModelLabels
from dmp_core.memory import Batches
from dmp_core.modalities import Modality
from dmp_core.modalities.base import Axes
from dmp_core.progress import Progress, silent
from dmp_core.quality.labels import flip_difference
from dmp_core.render import PROVIDES
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.base import Draft, Inputs, ModelUse, Node, OfModality, StageKind, StageResult, pinned, share
from dmp_core.store import (
    Artefact,
    Sample,
    ShardPlan,
    Skipped,
    canonical_json,
    offer_shard,
    shard_plans,
    shard_reader,
    write_shards,
)
from dmp_core.store.attempts import batch_or_each, overlapped
from dmp_core.synthesis.own_images import Listing
from dmp_core.weights.resolve import resolve_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

Images = Sequence[tuple[str, "NDArray[Any]"]]
"""(key, RGB uint8 (H, W, 3)) of consecutive samples of one size."""
Labels = Mapping[str, "NDArray[Any]"]
"""Modality → label, of one image or of a batch."""
BothWays = tuple[Labels, Labels | None]
"""The labels of an image, and those of its mirrored copy if they are checked."""
Labeled = Callable[[list[Sample]], Iterator["Sample | Skipped"]]
"""Maps the samples of an image shard to those of the label shard."""


KIND = StageKind("labels", version=1, typical=(0.01, 10_000), on_a_gpu=(0.1, 250_000), sharded=True, chunked=True)


class LabelsStage(OfModality):
    split: str
    labeler: LabelsConfig

    def uses(self) -> Iterator[ModelUse]:
        if isinstance(self.labeler, ModelLabels):
            yield ModelUse(f"labels.{self.task}.weights", self.labeler.weights)

    @property
    def shared(self) -> dict[str, Any] | None:
        if not isinstance(self.labeler, ModelLabels):
            return None
        return self.model_dump(mode="json", include={"labeler", "model_hash"})


class PinnedLabelsStage(LabelsStage):
    """With a labeler whose weights are in the registry."""

    model_hash: str


def add(draft: Draft, split: str) -> None:
    images = draft[f"images/{split}"]
    for name, labeler in _labelers(draft.config, draft.listings.get(split)).items():
        own = draft.config.own_modalities.get(name)
        stage = LabelsStage(split=split, task=name, own=own, labeler=labeler)
        settings = pinned(stage, PinnedLabelsStage, stage.uses())
        draft.add(KIND, f"{split}-{name}", settings, {"images": images}, images.samples)


def _labelers(config: PipelineConfig, listing: Listing | None) -> dict[str, LabelsConfig]:
    """The labelers of a split: the configured ones; in a folder its own labels come first, and no renderer."""
    if listing is None:
        for name in config.modalities:
            if config.labeler(name) == ExactLabels() and name not in PROVIDES:
                raise InputError(
                    f"labels.{name}: generated images have no labeler for it; name one, or use images that have such "
                    "labels (`dmp dataset import`)"
                )
        return {name: labeler for name in config.modalities if (labeler := config.labeler(name))}
    beside = listing.modalities
    exact = {name: of if isinstance(of := config.labels.get(name), ExactLabels) else ExactLabels() for name in beside}
    given = {name: exact.get(name) or config.labeler(name) for name in config.modalities}
    return {name: of for name, of in given.items() if of is not None and (of.kind != "exact" or name in beside)}


def same_pass(node: Node, nodes: Iterable[Node]) -> list[Node]:
    """The other columns that this node's labeler gives for the same images in the same pass, as PIE-Net does."""
    own = node.config
    assert isinstance(own, LabelsStage)
    return [
        other
        for other in nodes
        if isinstance(other.config, LabelsStage)
        and isinstance(own.labeler, ModelLabels)
        and other.name != node.name
        and other.inputs == node.inputs
        and other.config.labeler == own.labeler
    ]


def run(
    config: LabelsStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
    also: Sequence[tuple[LabelsStage, Artefact]] = (),
) -> StageResult:
    """Label every image shard; label shards keep the images' layout.

    also: missing artefacts of `same_pass`, whose shards are written along with this one's.
    """
    read, plans = shard_reader(inputs["images"]), shard_plans(inputs["images"])
    others = [(artefact, stage.modality) for stage, artefact in also]
    batches = _batches(config.labeler, config.task, runtime, f"{out.stage}/{out.name}")

    def produce(plan: ShardPlan) -> Iterator[Sample | Skipped]:
        made: list[Sample] = []
        for sample in labeled(read(plan.index)):
            yield sample if isinstance(sample, Skipped) else _column(sample, config.modality)
            made += [] if isinstance(sample, Skipped) else [sample]
        for artefact, modality in others:
            complete = [sample["__key__"] for sample in made if modality.member in sample] == list(plan.keys)
            if batches and complete:
                offer_shard(artefact, plan, [_column(sample, modality) for sample in made], batches)

    with _labeled(config, inputs, runtime, batches, [modality for _, modality in others]) as labeled:
        files = write_shards(
            out,
            plans,
            produce,
            only=shards,
            threaded=batches is not None,
            batches=batches,
            bounds=runtime.on_bad_sample.bounds,
            progress=progress,
        )
    return StageResult(samples=sum(plan.planned for plan in plans), files=files)


def _batches(labeler: LabelsConfig, name: str, runtime: RuntimeConfig, what: str) -> Batches | None:
    """None for exact labels, which take no device."""
    if not isinstance(labeler, ModelLabels):
        return None
    from dmp_core.weights.load import choose_device

    fix = f"set labels.{name}.dtype=float16, a smaller images.resolution, or runtime.device=cpu"
    return Batches(labeler.batch_size, what, choose_device(runtime.device), fix, item="one image")


@contextmanager
def _labeled(
    config: LabelsStage, inputs: Inputs, runtime: RuntimeConfig, batches: Batches | None, others: Sequence[Modality]
) -> Iterator[Labeled]:
    skips, modality, settings = runtime.on_bad_sample.skips, config.modality, config.labeler
    if batches is None or not isinstance(settings, ModelLabels):
        assert isinstance(settings, ExactLabels)
        yield _exact(modality, settings.axes, skips)
        return

    def load() -> AbstractContextManager[Labeler]:
        with batches.loading():
            return nullcontext(labeler_on(batches.device, modality.name, settings))

    with share(KIND, config, inputs, runtime, load) as labeler:
        yield _by_model(modality, settings, labeler, batches, skips, runtime.workers, others)


def _exact(modality: Modality, axes: Axes, skips: bool) -> Labeled:

    def exact(samples: Sequence[Sample]) -> list[Sample]:
        truths = {sample["__key__"]: _truth(sample, modality.name) for sample in samples}
        return [_encoded(modality, key, modality.turned(truth, axes)) for key, truth in truths.items()]

    def each(samples: list[Sample]) -> Iterator[Sample | Skipped]:
        for sample in samples:
            yield from batch_or_each([sample], [sample["__key__"]], exact, skips=skips)

    return each


def _truth(sample: Sample, name: str) -> NDArray[Any]:
    found = unpack_truth(sample["truth.npz"], (name,)) if "truth.npz" in sample else {}
    if name not in found:
        raise InputError(f"{sample['__key__']}: came without {name} labels; run the images stage again")
    return found[name]


def _encoded(modality: Modality, key: str, label: NDArray[Any]) -> Sample:
    try:
        data = modality.encode(label)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    return {"__key__": key, modality.member: data}


def _column(sample: Sample, modality: Modality) -> Sample:
    """One modality's members of a sample."""
    members = ("__key__", modality.member, _flip_member(modality))
    return {name: sample[name] for name in members if name in sample}


def _flip_member(modality: Modality) -> str:
    return f"{modality.name}.flip.json"


def _by_model(
    modality: Modality,
    settings: ModelLabels,
    labeler: Callable[[], Labeler],
    batches: Batches,
    skips: bool,
    workers: int,
    others: Sequence[Modality],
) -> Labeled:
    """others: modalities that are labelled too; a sample lacks those whose label is invalid or missing."""
    import torch

    name = modality.name

    def predicted(images: NDArray[Any], keys: Sequence[str]) -> Labels:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        try:
            answer = labeler()(pixels.float() / 255)
        except NotFinite as error:
            raise error.named(keys) from None
        if name not in answer:
            made = ", ".join(answer)
            raise WrongSetting(f"labels.{name}.kind: {settings.kind!r} makes {made}; choose a labeler for {name}")
        labels = {one.name: answer[one.name].cpu().numpy() for one in (modality, *others) if one.name in answer}
        return {name: np.moveaxis(array, 1, -1) if array.ndim == 4 else array for name, array in labels.items()}

    def both_ways(images: Images) -> list[BothWays]:
        keys, pixels = [key for key, _ in images], np.stack([image for _, image in images])
        labels = _of_each(predicted(pixels, keys), len(keys))
        if not settings.check_flip:
            return [(label, None) for label in labels]
        mirrored = _of_each(predicted(np.ascontiguousarray(pixels[:, :, ::-1]), keys), len(keys))
        return [*zip(labels, mirrored, strict=True)]

    def batch(images: Images) -> list[BothWays]:
        if not getattr(labeler(), "batch_independent", True):
            return both_ways(images)  # a smaller batch would give other labels
        return [labels for part in batches(images, both_ways) for labels in part]

    def encoded(key: str, labels: BothWays) -> Sample:
        sample = _members(modality, key, *labels)
        for other in others:
            with suppress(InputError, KeyError):  # its own stage reports it
                sample |= _members(other, key, *labels)
        return sample

    def by_model(samples: list[Sample]) -> Iterator[Sample | Skipped]:
        images = same_size_batches(samples, None, settings.batch_size)
        return overlapped(images, batch, encoded, opened=labeler, skips=skips, workers=workers)

    return by_model


def _of_each(labels: Labels, count: int) -> list[Labels]:
    """The labels of a batch's images, by modality, as those of each image."""
    return [{name: batch[index] for name, batch in labels.items()} for index in range(count)]


def _members(modality: Modality, key: str, labels: Labels, mirrored: Labels | None) -> Sample:
    """One modality of one sample. Raises InputError for an invalid label."""
    label = labels[modality.name]
    sample = _encoded(modality, key, label)
    if mirrored is not None:
        difference = flip_difference(modality, label, mirrored[modality.name])
        sample[_flip_member(modality)] = canonical_json(difference).encode()
    return sample


def labeler_on(device: str, name: str, settings: ModelLabels) -> Labeler:
    """The labeler of a modality, with the configuration's options; on the device `meta` only its weights' names and
    shapes are read. Raises InputError when they, or the options, do not fit."""
    taken = labeler_options(settings.kind)
    own: dict[str, Any] = {"batch_size": settings.batch_size, "dtype": settings.dtype}
    unknown = sorted(name for name in settings.options if name in own or (taken is not None and name not in taken))
    if unknown:
        known = "anything" if taken is None else ", ".join(sorted(taken - own.keys())) or "none"
        raise InputError(
            f"labels.{name}.options: labeler {settings.kind!r} takes no {', '.join(unknown)} there; it takes: {known}"
        )
    located = resolve_model(settings.weights, f"labels.{name}.weights")
    own |= {"revision": located.revision} if located.revision else {}
    given = {name: value for name, value in own.items() if taken is None or name in taken}
    return build_labeler(settings.kind, located.place, device, **given, **settings.options)
