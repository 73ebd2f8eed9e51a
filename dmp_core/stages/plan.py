"""The DAG: which artefacts a configuration asks for, what each is made from, and its fingerprint.

prompts ─► images ─► labels(task) ─► shards      ┐
              └────────┴─► latents(column) ─► train(task) ─► predict(task, split) ─► evaluate(task) ─► report
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import Field

from dmp_core.config.base import Settings
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.stages import (
    BaseConfig,
    DiffusionImages,
    EvaluateConfig,
    LabelsConfig,
    PromptsConfig,
    RenderImages,
    SamplingConfig,
    ShardsConfig,
    Task,
    TrainConfig,
)
from dmp_core.errors import InputError
from dmp_core.models.shipped import identity
from dmp_core.prompts.keywords import split_keywords
from dmp_core.store import Artefact, Workspace, fingerprint

VERSIONS = {
    "prompts": 2,
    "images": 2,
    "labels": 1,
    "shards": 1,
    "latents": 1,
    "train": 1,
    "predict": 1,
    "evaluate": 1,
    "report": 1,
}
"""Raise a stage's number when its code changes what it writes: its artefacts are then made anew."""

STAGES = tuple(VERSIONS)


# What each stage reads: exactly this is fingerprinted, and stored in the manifest.
class PromptsStage(Settings):
    split: str
    keywords: list[str]
    count: int
    prompts: PromptsConfig
    seed: int


class ImagesStage(Settings):
    split: str
    count: int
    images: RenderImages | DiffusionImages = Field(discriminator="kind")
    samples_per_shard: int


class LabelsStage(Settings):
    split: str
    task: Task
    labeler: LabelsConfig


class ShardsStage(Settings):
    dataset: str
    split: str
    shards: ShardsConfig
    palette: str


class LatentsStage(Settings):
    column: str
    """`image` or a task."""
    base: BaseConfig
    base_hash: str
    flip: bool
    resolution: int | None
    depth_scale: float | None
    palette: str | None
    batch_size: int


class TrainStage(Settings):
    task: Task
    train: TrainConfig | None
    """None: the adapter is finished already and only installed."""
    adapter: str | None
    adapter_hash: str | None
    base: BaseConfig
    base_hash: str
    depth_scale: float
    palette: str


class PredictStage(Settings):
    task: Task
    split: str
    row: str
    """`dmp`, or `ceiling`: the label itself, through the VAE and back."""
    base: BaseConfig
    base_hash: str
    sampling: SamplingConfig
    resolution: int | None
    depth_scale: float
    palette: str


class EvaluateStage(Settings):
    task: Task
    splits: list[str]
    evaluate: EvaluateConfig


class ReportStage(Settings):
    pipeline: dict[str, Any]
    """The whole configuration but `runtime`, to be shown."""


@dataclass(frozen=True)
class Node:
    """One artefact to be: the stage that makes it, what that stage reads, and where it comes from."""

    stage: str
    name: str
    config: Settings
    inputs: dict[str, Node] = field(default_factory=dict)
    samples: int = 0

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.name}"

    @property
    def version(self) -> int:
        return VERSIONS[self.stage]

    @cached_property
    def fingerprint(self) -> str:
        inputs = {role: node.fingerprint for role, node in self.inputs.items()}
        return fingerprint(self.stage, self.version, self.config.model_dump(mode="json"), inputs)

    def artefact(self, workspace: Workspace) -> Artefact:
        return workspace.artefact(self.stage, self.name, self.fingerprint)


def plan(config: PipelineConfig) -> list[Node]:
    """All nodes of the DAG, each after its inputs.

    Raises InputError for what can be known to be wrong before work starts: a keyword file, a base model
    folder, an adapter.
    """
    nodes = _Nodes()
    keywords = {
        name: split_keywords(name, split.keywords, split.keywords_file) for name, split in config.splits.items()
    }
    for split in sorted(config.splits, key=lambda name: name == "train"):
        _add_dataset(nodes, config, split, keywords)
    if "train" in config.splits and len(config.splits) > 1:
        for task in config.tasks:
            _add_model(nodes, config, task)
        shown = ReportStage(pipeline=config.model_dump(mode="json", exclude={"runtime"}))
        nodes.add("report", config.dataset, shown, _report_inputs(nodes))
    return list(nodes.by_id.values())


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


def _add_dataset(nodes: _Nodes, config: PipelineConfig, split: str, keywords: dict[str, list[str]]) -> None:
    """prompts → images → labels → shards of one split.

    The training split comes last and excludes the prompts of every test split that shares a keyword with
    it: test sets then stay as they are when the training set grows.
    """
    count = config.splits[split].count
    shared = [name for name in keywords if name != split and set(keywords[name]) & set(keywords[split])]
    exclude = {f"exclude_{name}": nodes[f"prompts/{name}"] for name in shared} if split == "train" else {}
    stage = PromptsStage(split=split, keywords=keywords[split], count=count, prompts=config.prompts, seed=config.seed)
    prompts = nodes.add("prompts", split, stage, exclude, count)

    per_shard = config.shards.samples_per_shard
    made = ImagesStage(split=split, count=count, images=config.images, samples_per_shard=per_shard)
    images = nodes.add("images", split, made, {"prompts": prompts}, count)
    columns = {"images": images}
    for task in config.tasks:
        labels = LabelsStage(split=split, task=task, labeler=config.labels[task])
        columns[task] = nodes.add("labels", f"{split}-{task}", labels, {"images": images}, count)
    merged = ShardsStage(dataset=config.dataset, split=split, shards=config.shards, palette=config.latents.palette)
    nodes.add("shards", f"{config.dataset}/{split}", merged, columns, count)


def _add_model(nodes: _Nodes, config: PipelineConfig, task: Task) -> None:
    """latents → train → predict → evaluate of one task."""
    adapter = _add_adapter(nodes, config, task)
    base_hash = identity(config.base.model, config.base.revision, "priors")
    scored, evaluation = [], {"labels_train": nodes[f"labels/train-{task}"]}
    for split in (name for name in config.splits if name != "train"):
        settings = PredictStage(
            task=task,
            split=split,
            row="dmp",
            base=config.base,
            base_hash=base_hash,
            sampling=config.sampling,
            resolution=config.latents.resolution,
            depth_scale=config.latents.depth_scale,
            palette=config.latents.palette,
        )
        count = config.splits[split].count
        inputs = {"adapter": adapter, "images": nodes[f"images/{split}"]}
        if config.sampling.use_prompt:
            inputs["prompts"] = nodes[f"prompts/{split}"]
        predicted = nodes.add("predict", f"{split}-{task}-dmp", settings, inputs, count)
        if config.splits[split].scored:
            labels = nodes[f"labels/{split}-{task}"]
            limit = settings.model_copy(update={"row": "ceiling", "sampling": SamplingConfig()})
            ceiling = nodes.add("predict", f"{split}-{task}-ceiling", limit, {"labels": labels}, count)
            evaluation |= {f"labels_{split}": labels, f"dmp_{split}": predicted, f"ceiling_{split}": ceiling}
            scored.append(split)
    total = sum(config.splits[split].count for split in scored)
    nodes.add("evaluate", task, EvaluateStage(task=task, splits=scored, evaluate=config.evaluate), evaluation, total)


def _add_adapter(nodes: _Nodes, config: PipelineConfig, task: Task) -> Node:
    finished = config.adapters.get(task)
    stage = TrainStage(
        task=task,
        train=None if finished else config.train,
        adapter=finished,
        adapter_hash=identity(finished, None, "adapters") if finished else None,
        base=config.base,
        base_hash=identity(config.base.model, config.base.revision, "priors"),
        depth_scale=config.latents.depth_scale,
        palette=config.latents.palette,
    )
    if finished:
        return nodes.add("train", f"{task}-dmp", stage)
    inputs = {"source": _add_latents(nodes, config, "image"), "target": _add_latents(nodes, config, task)}
    if config.train.use_prompt:
        inputs["prompts"] = nodes["prompts/train"]
    samples = config.train.steps * config.train.batch_size * config.train.gradient_accumulation
    return nodes.add("train", f"{task}-dmp", stage, inputs, samples)


def _add_latents(nodes: _Nodes, config: PipelineConfig, column: str) -> Node:
    """One column only, so that a new labeler re-encodes no images."""
    stage = LatentsStage(
        column=column,
        base=config.base,
        base_hash=identity(config.base.model, config.base.revision, "priors"),
        flip=config.latents.flip,
        resolution=config.latents.resolution,
        depth_scale=config.latents.depth_scale if column == "depth" else None,
        palette=config.latents.palette if column == "segmentation" else None,
        batch_size=config.latents.batch_size,
    )
    source = nodes["images/train" if column == "image" else f"labels/train-{column}"]
    return nodes.add("latents", column, stage, {"column": source}, source.samples)


def _report_inputs(nodes: _Nodes) -> dict[str, Node]:
    return {node.id: node for node in nodes.by_id.values() if node.stage != "latents"}


def find(nodes: list[Node], node_id: str) -> Node:
    for node in nodes:
        if node.id == node_id:
            return node
    raise InputError(f"{node_id}: no such artefact in this configuration; see `dmp plan`")
