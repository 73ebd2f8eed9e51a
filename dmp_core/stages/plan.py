"""The DAG: the artefacts of a configuration, their inputs and fingerprints.

prompts ─► images ─► labels(modality) ─► shards      ┐
              ├────────┼─► latents(column) ─► train(modality) ─► predict(…, split) ─► evaluate(…) ─► report
              └────────┴─► quality ─► stages that drop samples: shards, train, evaluate

Methods that edit by instructions have `editor` before train and predict, unless the settings name one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.errors import InputError
from dmp_core.prompts.keywords import split_keywords
from dmp_core.prompts.subject import refuse_unusable
from dmp_core.quality.rejects import with_rejects
from dmp_core.stages.base import Draft, Node, decoders_of
from dmp_core.stages.registry import LAST, PER_MODALITY, PER_SPLIT, stage_module
from dmp_core.synthesis.listing import read_folder
from dmp_core.synthesis.own_images import UNKNOWN_SIZE, Listing
from dmp_core.weights.bases import check_base, check_decoder_of
from dmp_core.weights.resolve import notice_moved

_made: ContextVar[tuple[PipelineConfig, list[Node]] | None] = ContextVar("dmp_plan", default=None)


@contextmanager
def one_plan(config: PipelineConfig) -> Iterator[list[Node]]:
    """Plan once for everything in this context (and in threads that inherit it); yields the nodes."""
    nodes = plan(config)
    token = _made.set((config, nodes))
    try:
        yield list(nodes)
    finally:
        _made.reset(token)


def plan(config: PipelineConfig) -> list[Node]:
    """All nodes of the DAG, each after its inputs.

    Models are planned if there is a split to predict, and a training split or a finished adapter for every modality.
    Raises InputError for errors that can be found before work starts: in a keyword file, a folder of images, a base
    model folder, an adapter.
    """
    if (made := _made.get()) is not None and made[0] == config:
        return list(made[1])
    listings = {
        name: read_folder(
            split.folder,
            split.share,
            split.count,
            keeps_broken=config.runtime.on_bad_sample.skips,
            modalities=config.known,
        )
        for name, split in config.splits.items()
        if split.folder
    }
    _check_apart(config, listings)
    keywords = {
        name: split_keywords(name, split.keywords, split.keywords_file)
        for name, split in config.splits.items()
        if name not in listings
    }
    given = {
        f"splits.{name}.keywords{'_file' * bool(config.splits[name].keywords_file)}": keywords[name]
        for name in keywords
    }
    refuse_unusable(given, config.prompts.max_characters)
    counts = {name: split.count or 0 for name, split in config.splits.items()}
    counts |= {name: len(listing.images) for name, listing in listings.items()}
    quality = with_rejects(config.quality, counts)
    draft = Draft(config.model_copy(update={"quality": quality}), listings, keywords)
    for split in sorted(config.splits, key=lambda name: name == "train"):
        for stage in PER_SPLIT:
            stage_module(stage).add(draft, split)
    trained = "train" in config.splits or all(name in config.adapters for name in config.modalities)
    if trained and config.splits.keys() - {"train"}:
        for modality in config.chosen:
            for stage in PER_MODALITY:
                stage_module(stage).add(draft, modality)
        for stage in LAST:
            stage_module(stage).add(draft)
    nodes = list(draft.by_id.values())
    _check_uses(nodes)
    return nodes


def _check_uses(nodes: list[Node]) -> None:
    """Refuse a base of another kind, and say which models are not where they were."""
    for use in dict.fromkeys(use for node in nodes for use in node.models):
        notice_moved(use.reference, use.revision, use.field)
        if use.field == "base.model":
            check_base(use.reference, use.revision)
    for base, decoder in decoders_of(nodes):
        check_decoder_of(base, decoder)


def _check_apart(config: PipelineConfig, listings: dict[str, Listing]) -> None:
    """Check that no image is both trained on and scored, and that training images have one size."""
    if "train" not in listings:
        return
    train = listings["train"]
    learnt = {image.sha256: image.file for image in train.images}
    for name, listing in listings.items():
        for image in listing.images if name != "train" and config.splits[name].scored else ():
            if image.sha256 in learnt and image.size != UNKNOWN_SIZE:
                raise InputError(
                    f"splits.{name}: {listing.root / image.file} is also trained on, as "
                    f"{train.root / learnt[image.sha256]}; take it out of one of the two"
                )
    trains = len(config.splits) > 1 and any(name not in config.adapters for name in config.modalities)
    if (
        trains
        and config.splits["train"].fit != "crop"
        and len({image.size for image in train.images if image.size != UNKNOWN_SIZE}) > 1
    ):
        raise InputError("splits.train.fit: images of several sizes cannot be trained on in one batch; use crop")


def find(nodes: list[Node], node_id: str) -> Node:
    for node in nodes:
        if node.id == node_id:
            return node
    raise InputError(f"{node_id}: no such artefact in this configuration; see `dmp plan`")
