"""One artefact to be: the stage that makes it, what exactly that stage reads, and what it is made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny

from dmp_core.config.base import Settings
from dmp_core.config.stages import (
    BaseConfig,
    DiffusionImages,
    EditorConfig,
    EvaluateConfig,
    FolderImages,
    LabelsConfig,
    MethodConfig,
    MethodSettings,
    ModalityName,
    ModelLabels,
    PromptsConfig,
    RenderImages,
    SamplingConfig,
    ShardsConfig,
    SplitConfig,
    TransformersPrompts,
    VLLMPrompts,
)
from dmp_core.methods.diffusion_settings import InstructConfig
from dmp_core.methods.registry import find_method
from dmp_core.modalities import Code, Modality, find_modality
from dmp_core.modalities.base import Axes, DepthCurve
from dmp_core.modalities.registry import modalities_of
from dmp_core.modalities.settings import OwnModality
from dmp_core.models.prior.config import SceneConfig
from dmp_core.quality.gates import Gates
from dmp_core.store import Artefact, Workspace, fingerprint

VERSIONS = {
    "prompts": 2,
    "images": 3,
    "labels": 1,
    "quality": 1,
    "shards": 3,
    "latents": 1,
    "editor": 1,
    "train": 2,
    "predict": 2,
    "evaluate": 3,
    "report": 1,
}
"""Raise a stage's number when its code changes what it writes: its artefacts are then made anew."""

STAGES = tuple(VERSIONS)


GatesField = Annotated[Gates, Field(default_factory=dict, exclude_if=lambda gates: not gates)]
"""The gates that a stage applies, and no others; without any, its fingerprint knows nothing of gates."""

# Left out of the dump, and so of the fingerprint, where it is not set.
_Optional = Field(default=None, exclude_if=lambda value: value is None)


# What each stage reads: exactly this is fingerprinted, and stored in the manifest.
class PromptsStage(Settings):
    split: str
    keywords: list[str]
    count: int
    prompts: PromptsConfig
    seed: int
    clean_up: int | None = _Optional
    """`cleanup.RULES`, where these can give other captions than the first rules did; else None."""
    meanings: int | None = _Optional
    """`families.MEANINGS`, where a keyword means another place than by the first rules; else None."""


class PinnedPromptsStage(PromptsStage):
    """With a language model of the registry."""

    model_hash: str


class FolderPromptsStage(Settings):
    split: str
    source: SplitConfig = Field(exclude=True)
    """Where the files lie. Not part of the fingerprint: `digest` is."""
    own_modalities: dict[str, OwnModality] = Field(default={}, exclude=True)
    """What its labels may be of, besides those that are known."""
    file_axes: dict[str, Axes] = Field(default={}, exclude=True)
    """As in `PipelineConfig`."""
    digest: str
    """Of names and contents of the images, their captions and their labels."""
    seed: int

    @property
    def modalities(self) -> list[Modality]:
        found = modalities_of({"own_modalities": self.own_modalities})
        return [replace(m, file_axes=self.file_axes.get(m.name, m.file_axes)) for m in found]


class ImagesStage(Settings):
    split: str
    count: int
    images: RenderImages | DiffusionImages | FolderImages = Field(discriminator="kind")
    samples_per_shard: int


class DiffusionImagesStage(ImagesStage):
    model_hash: str


class OfModality(Settings):
    """What stages read that work on one modality."""

    task: ModalityName
    """The modality's name, by the word that fingerprints know."""
    own: OwnModality | None = _Optional
    """What it is, if the configuration describes it."""

    @property
    def modality(self) -> Modality:
        return find_modality(self.task, self.own)


class Coded(Settings):
    """How labels are images; what is not set of it is left out, and so are newer settings that have their default."""

    depth_scale: float | None
    palette: str | None
    depth_curve: DepthCurve = Field(default="linear", exclude_if=lambda value: value == "linear")
    depth_clip: bool = Field(default=True, exclude_if=lambda value: value)

    @property
    def code(self) -> Code:
        stated = {name: value for name in _CODE if (value := getattr(self, name)) is not None}
        return Code(**stated)


_CODE = ("depth_scale", "depth_curve", "depth_clip", "palette")


class LabelsStage(OfModality):
    split: str
    labeler: LabelsConfig


class PinnedLabelsStage(LabelsStage):
    """With a labeler whose weights are in the registry."""

    model_hash: str


class QualityStage(Settings):
    split: str
    task: ModalityName | None
    """The modality whose labels are scored; None: image and prompt."""
    own: OwnModality | None = _Optional
    clip_model: str | None = None
    clip_hash: str | None = None


class ShardsStage(Settings):
    dataset: str
    split: str
    shards: ShardsConfig
    palette: str
    gates: GatesField
    own_modalities: dict[str, OwnModality] = Field(default={}, exclude_if=lambda own: not own)

    def modality(self, name: str) -> Modality:
        return find_modality(name, self.own_modalities.get(name))


class LatentsStage(Coded):
    column: str
    """`image` or a modality."""
    own: OwnModality | None = _Optional
    base: BaseConfig
    base_hash: str
    flip: bool
    resolution: int | None
    batch_size: int


class EditorStage(Settings):
    base: BaseConfig
    base_hash: str
    scenes: SceneConfig
    fit: InstructConfig
    meanings: int | None = _Optional
    """As in `PromptsStage`."""


class TrainStage(OfModality, Coded):
    train: MethodSettings | None
    """None: the adapter is finished already and only installed."""
    adapter: str | None
    adapter_hash: str | None
    base: BaseConfig
    base_hash: str
    min_class_share: float = Field(default=0.0, exclude_if=lambda share: share == 0)
    """Of class maps alone."""
    gates: GatesField
    editor: EditorConfig | None = _Optional
    """The one that the settings name; None: none is asked, or the DAG makes it."""
    editor_hash: str | None = _Optional


class OwnModelTrainStage(TrainStage):
    """With a method that starts from a model of its own."""

    model_hash: str


class PredictStage(OfModality, Coded):
    split: str
    row: str
    """A method's name, or `ceiling`: the label itself, through the VAE and back."""
    base: BaseConfig
    base_hash: str
    sampling: SamplingConfig
    resolution: int | None
    inference: SerializeAsAny[Settings] | None = _Optional
    """What the method's own settings say of it."""
    editor: EditorConfig | None = _Optional
    """As in `TrainStage`."""
    editor_hash: str | None = _Optional


class EvaluateStage(OfModality):
    splits: list[str]
    evaluate: EvaluateConfig
    gates: GatesField
    method: str = Field(default="dmp", exclude_if=lambda name: name == "dmp")


class ReportStage(Settings):
    pipeline: dict[str, Any]
    """The whole configuration but `runtime` and what DMP does not use, to be shown."""


@dataclass(frozen=True)
class ModelUse:
    """A model that a stage loads, from outside the package."""

    field: str
    """The setting that names it."""
    reference: str
    revision: str | None = None
    file: str = ""
    """The only one that is read of a folder, if it is known."""


@dataclass(frozen=True)
class Node:
    """One artefact to be: the stage that makes it, what that stage reads, and where it comes from."""

    stage: str
    name: str
    config: Settings
    inputs: dict[str, Node] = field(default_factory=dict)
    samples: int = 0
    given: str | None = None
    """Fingerprint of an artefact that the plan reads and does not make."""

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.name}"

    @property
    def version(self) -> int:
        return VERSIONS[self.stage]

    @cached_property
    def fingerprint(self) -> str:
        if self.given is not None:
            return self.given
        inputs = {role: node.fingerprint for role, node in self.inputs.items()}
        read = self.config.model_dump(mode="json", context={"fingerprint": True})
        return fingerprint(self.stage, self.version, read, inputs)

    @property
    def models(self) -> tuple[ModelUse, ...]:
        """What it loads."""
        return models_of(self.config)

    def artefact(self, workspace: Workspace) -> Artefact:
        return workspace.artefact(self.stage, self.name, self.fingerprint)


def models_of(stage: Settings) -> tuple[ModelUse, ...]:
    """The models that a stage with these settings loads, but those that ship with this package or another one."""
    return tuple(use for use in _uses(stage) if not use.reference.startswith(("shipped:", "package:")))


def model_named(stage: Settings) -> ModelUse | None:
    """The model that writes the prompts or labels, wherever it runs."""
    match stage:
        case PromptsStage(prompts=PromptsConfig(generator=TransformersPrompts() as llm)):
            return ModelUse("prompts.generator.model", llm.model, llm.revision, llm.gguf_file or "")
        case PromptsStage(prompts=PromptsConfig(generator=VLLMPrompts() as llm)):
            return ModelUse("prompts.generator.model", llm.model, llm.revision)
        case LabelsStage(task=task, labeler=ModelLabels() as labeler):
            return ModelUse(f"labels.{task}.weights", labeler.weights)
    return None


def _uses(stage: Settings) -> Iterator[ModelUse]:
    match stage:
        case PromptsStage(prompts=PromptsConfig(generator=VLLMPrompts(server_url=str()))):
            return  # the server loads it
        case PromptsStage() | LabelsStage():
            if use := model_named(stage):
                yield use
        case ImagesStage(images=DiffusionImages() as images):
            yield ModelUse("images.model", images.model, images.revision)
        case QualityStage(clip_model=str(clip)):
            yield ModelUse("quality.clip_model", clip)
        case LatentsStage(base=base) | EditorStage(base=base):
            yield ModelUse("base.model", base.model, base.revision)
        case TrainStage(train=MethodConfig() as method):
            if find_method(method.method).needs == "latents":
                yield ModelUse("base.model", stage.base.model, stage.base.revision)
            if own := method.own_model:
                yield ModelUse(f"train.{own[0]}", own[1], own[2])
            yield from _editor_use(stage.editor)
        case PredictStage(editor=None, base=base):
            yield ModelUse("base.model", base.model, base.revision)
        case PredictStage(editor=editor):
            yield from _editor_use(editor)


def _editor_use(editor: EditorConfig | None) -> Iterator[ModelUse]:
    if editor is not None and editor.model is not None:
        yield ModelUse("editor.model", editor.model, editor.revision)
