"""The DAG: which artefacts a configuration asks for, what each is made from, and its fingerprint.

prompts ─► images ─► labels(modality) ─► shards      ┐
              ├────────┼─► latents(column) ─► train(modality) ─► predict(…, split) ─► evaluate(…) ─► report
              └────────┴─► quality ─► whatever leaves samples out: shards, train, evaluate

Methods that edit by instructions have `editor` before train and predict, unless the settings name one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from dmp_core.config.base import Settings
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.stages import (
    DiffusionImages,
    EditorConfig,
    ExactLabels,
    FolderImages,
    GrammarPrompts,
    LabelsConfig,
    SamplingConfig,
)
from dmp_core.errors import InputError
from dmp_core.families import MEANINGS
from dmp_core.former_families import means_the_same
from dmp_core.methods.registry import find_method
from dmp_core.modalities import Modality
from dmp_core.models.adapters import check_finished
from dmp_core.models.editor import recipe_with
from dmp_core.models.shipped import identity, local_digest, registered
from dmp_core.models.text_to_image import check_text_to_image
from dmp_core.prompts.cleanup import RULES, judged_alike
from dmp_core.prompts.keywords import split_keywords
from dmp_core.prompts.subject import refuse_unusable
from dmp_core.quality.gates import IMAGE, Gates, gates_for
from dmp_core.stages.node import (
    Coded,
    DiffusionImagesStage,
    EditorStage,
    EvaluateStage,
    FolderPromptsStage,
    ImagesStage,
    LabelsStage,
    LatentsStage,
    Node,
    OwnModelTrainStage,
    PinnedLabelsStage,
    PinnedPromptsStage,
    PredictStage,
    PromptsStage,
    QualityStage,
    ReportStage,
    ShardsStage,
    TrainStage,
    model_named,
)
from dmp_core.synthesis import PROVIDES
from dmp_core.synthesis.listing import UNKNOWN_SIZE, Listing, read_folder

# Captions of a language model that the first rules of clean-up passed, and that pass today's: they are as they were.
_MEASURED = frozenset({"240684b76df6"})  # the preset mini's in_domain, with SmolLM2


def _pinned(stage: Settings, kind: type[PinnedPromptsStage] | type[PinnedLabelsStage]) -> Settings:
    """With what fixes its model, by the registry or by its files here: other weights are another artefact.

    The same whether this machine loads the model or a server does.
    """
    use = model_named(stage)
    if use is None:
        return stage
    path = Path(use.reference).expanduser() / use.file
    if model := registered(use.reference, use.revision):
        return kind(**dict(stage), model_hash=model.identity())
    return kind(**dict(stage), model_hash=local_digest(path)) if path.exists() else stage


def plan(config: PipelineConfig) -> list[Node]:
    """All nodes of the DAG, each after its inputs.

    Models are planned if there is something to predict, and something to train on or a finished adapter for every
    modality. Raises InputError for what can be known to be wrong before work starts: a keyword file, a folder of
    images, a base model folder, an adapter.
    """
    nodes = _Nodes()
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
    for split in sorted(config.splits, key=lambda name: name == "train"):
        _add_dataset(nodes, config, split, keywords, listings.get(split))
    trained = "train" in config.splits or all(name in config.adapters for name in config.modalities)
    if trained and config.splits.keys() - {"train"}:
        for modality in config.chosen:
            _add_model(nodes, config, modality)
        if config.train.method == "dmp":  # other methods are compared with it by `dmp compare`
            shown = ReportStage(pipeline=_as_first_written(config))
            nodes.add("report", config.dataset, shown, _report_inputs(nodes))
    return list(nodes.by_id.values())


def _as_first_written(config: PipelineConfig) -> dict[str, Any]:
    """The configuration by the words that fingerprints of reports know."""
    values = config.model_dump(mode="json", exclude={"runtime", "editor"})
    return {"tasks" if name == "modalities" else name: value for name, value in values.items()}


class _Nodes:
    """The DAG under construction."""

    def __init__(self) -> None:
        self.by_id: dict[str, Node] = {}

    def __getitem__(self, node_id: str) -> Node:
        return self.by_id[node_id]

    def add(
        self, stage: str, name: str, config: Settings, inputs: dict[str, Node] | None = None, samples: int = 0
    ) -> Node:
        node = Node(stage, name, config, inputs or {}, samples)
        self.by_id[node.id] = node
        return node


def _add_dataset(
    nodes: _Nodes, config: PipelineConfig, split: str, keywords: dict[str, list[str]], listing: Listing | None
) -> None:
    """prompts → images → labels → quality → shards of one split.

    The training split comes last and excludes the prompts of every test split that shares a keyword with
    it: test sets then stay as they are when the training set grows.
    """
    if listing is None:
        prompts = _add_prompts(nodes, config, split, keywords)
    else:
        prompts = _add_listing(nodes, config, split, listing)
    count, stage = prompts.samples, _images_stage(config, split, listing, prompts.samples)
    images = nodes.add("images", split, stage, {"prompts": prompts}, count)
    columns = {"images": images}
    for name, labeler in _labelers(config, listing).items():
        stage_of = LabelsStage(split=split, task=name, own=config.own_modalities.get(name), labeler=labeler)
        labels = _pinned(stage_of, PinnedLabelsStage)
        columns[name] = nodes.add("labels", f"{split}-{name}", labels, {"images": images}, count)
    _add_quality(nodes, config, split, columns)
    labelled = [modality for modality in config.chosen if modality.name in columns]
    merged = ShardsStage(
        dataset=config.dataset,
        split=split,
        shards=config.shards,
        palette=config.latents.palette,
        gates=gates_for(config.quality, labelled),
        own_modalities={m.name: config.own_modalities[m.name] for m in labelled if m.name in config.own_modalities},
    )
    scores = _scores(nodes, split, [IMAGE, *(modality.name for modality in labelled)])
    nodes.add("shards", f"{config.dataset}/{split}", merged, columns | scores, count)


def _add_quality(nodes: _Nodes, config: PipelineConfig, split: str, columns: dict[str, Node]) -> None:
    """One table for images and prompts, and one a label column, so that a new labeler redoes its own alone.

    Training images are also held against those of the scored splits that share a keyword with them; so another test
    set retrains nothing.
    """
    for name, labels in columns.items():
        if name != "images":
            scored = QualityStage(split=split, task=name, own=config.own_modalities.get(name))
            nodes.add("quality", f"{split}-{name}", scored, {"labels": labels}, labels.samples)
    model = config.quality.clip_model
    clip_hash = identity(model, None, "priors", field="quality.clip_model") if model else None
    stage = QualityStage(split=split, task=None, clip_model=model, clip_hash=clip_hash)
    shared = [role.removeprefix("exclude_") for role in nodes[f"prompts/{split}"].inputs]
    tested = [name for name in shared if name in config.splits and config.splits[name].scored]
    tests = {f"test_{name}": nodes[f"quality/{name}"] for name in tested}
    nodes.add("quality", split, stage, {"images": columns["images"]} | tests, columns["images"].samples)


def _scores(nodes: _Nodes, split: str, tables: Iterable[str]) -> dict[str, Node]:
    """The score tables that there are of a split, by role."""
    found = {table: nodes.by_id.get(quality_node(split, table)) for table in tables}
    return {f"quality_{split}_{table}": node for table, node in found.items() if node is not None}


def quality_node(split: str, table: str) -> str:
    """Id of the node that makes one score table: `image`, or a modality."""
    return f"quality/{split}" if table == IMAGE else f"quality/{split}-{table}"


def _images_stage(config: PipelineConfig, split: str, listing: Listing | None, count: int) -> ImagesStage:
    source = config.images if listing is None else _own_images(config, split, listing)
    per_shard = config.shards.samples_per_shard
    stage = ImagesStage(split=split, count=count, images=source, samples_per_shard=per_shard)
    if not isinstance(source, DiffusionImages):
        return stage
    check_text_to_image(source)
    model_hash = identity(source.model, source.revision, "priors", field="images.model")
    return DiffusionImagesStage(**dict(stage), model_hash=model_hash)


def _add_prompts(nodes: _Nodes, config: PipelineConfig, split: str, keywords: dict[str, list[str]]) -> Node:
    count = config.splits[split].count
    assert count is not None
    shared = [name for name in keywords if name != split and set(keywords[name]) & set(keywords[split])]
    exclude = {f"exclude_{name}": nodes[f"prompts/{name}"] for name in shared} if split == "train" else {}
    for reference in config.splits[split].exclude:
        name, _, known = reference.rpartition("-")
        exclude[f"exclude_{name}"] = Node("prompts", name, Settings(), given=known)
    stage = PromptsStage(split=split, keywords=keywords[split], count=count, prompts=config.prompts, seed=config.seed)
    pinned = _pinned(stage, PinnedPromptsStage)
    if not _judged_alike(stage) and Node("prompts", split, pinned, exclude).fingerprint not in _MEASURED:
        pinned = pinned.model_copy(update={"clean_up": RULES})
    pinned = pinned.model_copy(update={"meanings": _meanings(stage.keywords)})
    return nodes.add("prompts", split, pinned, exclude, count)


def _meanings(keywords: Iterable[str]) -> int | None:
    """For fingerprints of what is captioned or drawn from keywords, if one of them means another place than before."""
    return None if all(map(means_the_same, keywords)) else MEANINGS


def _judged_alike(stage: PromptsStage) -> bool:
    """Whether the captions are the same by the first rules of clean-up, so that they keep their fingerprint."""
    grammar, longest = isinstance(stage.prompts.generator, GrammarPrompts), stage.prompts.max_characters
    return grammar and all(judged_alike(keyword, longest) for keyword in stage.keywords)


def _add_listing(nodes: _Nodes, config: PipelineConfig, split: str, listing: Listing) -> Node:
    """A folder's captions: what stands for prompts where images are not made but given."""
    stage = FolderPromptsStage(
        split=split,
        source=config.splits[split],
        own_modalities=config.own_modalities,
        file_axes=config.file_axes,
        digest=listing.digest,
        seed=config.seed,
    )
    return nodes.add("prompts", split, stage, {}, len(listing.images))


def _own_images(config: PipelineConfig, split: str, listing: Listing) -> FolderImages:
    fit = config.splits[split].fit
    return FolderImages(
        folder=str(listing.root),
        fit=fit,
        resolution=None if fit == "keep" else config.images.resolution,
        labels=list(listing.modalities),
        own_modalities={name: own for name, own in config.own_modalities.items() if name in listing.modalities},
    )


def _labelers(config: PipelineConfig, listing: Listing | None) -> dict[str, LabelsConfig]:
    """What labels a split: the configured labelers; of a folder its own labels first, and no renderer."""
    if listing is None:
        for name in config.modalities:
            if config.labeler(name) == ExactLabels() and name not in PROVIDES:
                raise InputError(
                    f"labels.{name}: nothing labels generated images with it; name a labeler, or take images that have "
                    "such labels (`dmp dataset import`)"
                )
        return {name: labeler for name in config.modalities if (labeler := config.labeler(name))}
    beside = listing.modalities
    exact = {name: of if isinstance(of := config.labels.get(name), ExactLabels) else ExactLabels() for name in beside}
    given = {name: exact.get(name) or config.labeler(name) for name in config.modalities}
    return {name: of for name, of in given.items() if of is not None and (of.kind != "exact" or name in beside)}


def _check_apart(config: PipelineConfig, listings: dict[str, Listing]) -> None:
    """No image is both trained on and scored; and what is trained on has one size."""
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


def _add_model(nodes: _Nodes, config: PipelineConfig, modality: Modality) -> None:
    """latents → train → predict → evaluate of one modality."""
    adapter, method, name = _add_adapter(nodes, config, modality), config.train.method, modality.name
    base_hash = _base_hash(config)
    named, made = _add_editor(nodes, config)
    gates = gates_for(config.quality, [modality])
    scored, total = [], 0
    learnt = nodes.by_id.get(f"labels/train-{name}")
    evaluation = {"labels_train": learnt, **_scores(nodes, "train", gates)} if learnt else {}
    for split in (split for split in config.splits if split != "train"):
        settings = PredictStage(
            **_of(config, modality),
            **_code(config, modality),
            split=split,
            row=method,
            base=config.base,
            base_hash=base_hash,
            sampling=config.sampling.for_modality(modality),
            resolution=config.latents.resolution_of(name),
            inference=config.train.inference,
            **named,
        )
        images = nodes[f"images/{split}"]
        count, inputs = images.samples, {"adapter": adapter, "images": images, **made}
        if config.sampling.use_prompt:
            inputs["prompts"] = nodes[f"prompts/{split}"]
        predicted = nodes.add("predict", f"{split}-{name}-{method}", settings, inputs, count)
        labels = nodes.by_id.get(f"labels/{split}-{name}")
        if labels and config.splits[split].scored:
            own = {"inference": None, "editor": None, "editor_hash": None}
            limit = settings.model_copy(update={"row": "ceiling", "sampling": SamplingConfig()} | own)
            ceiling = nodes.add("predict", f"{split}-{name}-ceiling", limit, {"labels": labels}, count)
            evaluation |= {f"labels_{split}": labels, f"{method}_{split}": predicted, f"ceiling_{split}": ceiling}
            evaluation |= _scores(nodes, split, gates)
            scored.append(split)
            total += count
    if scored:
        stage = EvaluateStage(
            **_of(config, modality), splits=scored, evaluate=config.evaluate, gates=gates, method=method
        )
        nodes.add("evaluate", name, stage, evaluation, total)


def _of(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `OfModality`."""
    return {"task": modality.name, "own": config.own_modalities.get(modality.name)}


def _code(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `Coded`: those that were first are stated of every modality, later ones of those that read them."""
    code = config.latents.code
    return {"depth_scale": code.depth_scale, "palette": code.palette} | _code_read(config, modality)


def _code_read(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `Coded` that the modality's label images depend on."""
    code = config.latents.code
    names = modality.code_of(modality.encoding(code)).keys() & Coded.model_fields.keys()
    return {name: getattr(code, name) for name in names}


def _add_adapter(nodes: _Nodes, config: PipelineConfig, modality: Modality) -> Node:
    """The fitted method. Named after whoever fits it: settings of inference, and other methods, may share it."""
    name = modality.name
    finished, fitted = config.adapters.get(name), config.train.fitted.for_modality(modality)
    learns = not finished and find_method(fitted.method).needs != "nothing"
    gates: Gates = gates_for(config.quality, [modality]) if learns else {}
    named, made = _add_editor(nodes, config) if learns else ({}, {})
    if finished:
        check_finished(finished, modality, config.latents.code)
    stage = TrainStage(
        **_of(config, modality),
        **_code(config, modality),
        train=None if finished else fitted,
        adapter=finished,
        adapter_hash=identity(finished, None, "adapters", field=f"adapters.{name}") if finished else None,
        base=config.base,
        base_hash=_base_hash(config),
        min_class_share=config.latents.min_class_share if learns and modality.has_classes else 0.0,
        gates=gates,
        **named,
    )
    node = f"{name}-{fitted.method}"
    if not learns:
        return nodes.add("train", node, stage)
    if f"labels/train-{name}" not in nodes.by_id:
        raise InputError(
            f"splits.train: its folder holds no {name} labels to train on; add them, name a labeler "
            f"(labels.{name}) or a finished adapter (adapters.{name}), or leave {name} out of `modalities`"
        )
    if own := fitted.own_model:
        stage = OwnModelTrainStage(
            **dict(stage), model_hash=identity(own[1], own[2], "priors", field=f"train.{own[0]}")
        )
    inputs = _training_data(nodes, config, modality) | _scores(nodes, "train", gates) | made
    if fitted.reads_prompts:
        inputs["prompts"] = nodes["prompts/train"]
    return nodes.add("train", node, stage, inputs, fitted.draws)


def _add_editor(nodes: _Nodes, config: PipelineConfig) -> tuple[dict[str, Any], dict[str, Node]]:
    """What a stage that asks the editor must know of it: settings if they name one, else the node that makes it."""
    if not config.train.reads_editor:
        return {}, {}
    editor = config.editor
    if editor.model is not None:
        named = EditorConfig(model=editor.model, revision=editor.revision)
        known = identity(editor.model, editor.revision, "priors", field="editor.model")
        return {"editor": named, "editor_hash": known}, {}
    recipe = recipe_with(editor.recipe)
    sources = [split_keywords(name, s.keywords, s.keywords_file) for name, s in recipe.scenes.sources.items()]
    meanings = _meanings(chain.from_iterable(sources))
    stage = EditorStage(
        base=config.base, base_hash=_base_hash(config), scenes=recipe.scenes, fit=recipe.fit, meanings=meanings
    )
    return {}, {"editor": nodes.add("editor", "instruct", stage, samples=recipe.scenes.scenes)}


def _training_data(nodes: _Nodes, config: PipelineConfig, modality: Modality) -> dict[str, Node]:
    """What the method learns from, by role."""
    match find_method(config.train.fitted.method).needs:
        case "latents":
            latents = {
                "source": _add_latents(nodes, config, modality, "image"),
                "target": _add_latents(nodes, config, modality, modality.name),
            }
            labels = modality.has_classes or config.train.fitted.reads_labels
            return latents | ({"labels": nodes[f"labels/train-{modality.name}"]} if labels else {})
        case "images":
            return {"images": nodes["images/train"], "labels": nodes[f"labels/train-{modality.name}"]}
        case "nothing":
            return {}


def _add_latents(nodes: _Nodes, config: PipelineConfig, modality: Modality, column: str) -> Node:
    """One column only, so that a new labeler re-encodes no images; those of the images once a resolution."""
    resolution = config.latents.resolution_of(modality.name)
    read = {} if column == "image" else _code_read(config, modality)
    stage = LatentsStage(
        column=column,
        base=config.base,
        base_hash=_base_hash(config),
        flip=config.latents.flip,
        resolution=resolution,
        own=None if column == "image" else config.own_modalities.get(column),
        **{"depth_scale": None, "palette": None} | read,
        batch_size=config.latents.batch_size,
    )
    source = nodes["images/train" if column == "image" else f"labels/train-{column}"]
    name = f"image-{resolution}" if column == "image" and resolution != config.latents.resolution else column
    return nodes.add("latents", name, stage, {"column": source}, source.samples)


def _base_hash(config: PipelineConfig) -> str:
    return identity(config.base.model, config.base.revision, "priors", field="base.model")


def _report_inputs(nodes: _Nodes) -> dict[str, Node]:
    return {node.id: node for node in nodes.by_id.values() if node.stage != "latents"}


def find(nodes: list[Node], node_id: str) -> Node:
    for node in nodes:
        if node.id == node_id:
            return node
    raise InputError(f"{node_id}: no such artefact in this configuration; see `dmp plan`")
