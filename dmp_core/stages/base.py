"""Definition of a stage (kind of artefact, settings, `add`, `run`) and of the plan's nodes.

A stage's module has

    KIND                    its name, version and folder, properties of its shards, typical rates
    class …(StageSettings)  the settings it reads: exactly these are fingerprinted, and stored in the manifest
    add(draft, …)           adds its nodes to the plan
    run(config, inputs, out, *, runtime, shards, progress) -> StageResult

and optionally `announce(out)`, which updates files outside its artefact. Light to import: heavy libraries are imported
where `run` needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.diffusion.decoder import FIELD as DECODER
from dmp_core.memory import SHARED
from dmp_core.methods.protocol import Needs
from dmp_core.methods.registry import find_method
from dmp_core.modalities import Code, Modality, find_modality
from dmp_core.modalities.base import DepthCurve
from dmp_core.modalities.registry import ModalityName
from dmp_core.modalities.settings import OwnModality
from dmp_core.names import Source
from dmp_core.progress import Progress, silent
from dmp_core.quality.gates import IMAGE, Gates
from dmp_core.quality.tables import score_role
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import Settings, since
from dmp_core.store import Artefact, FileRecord, Workspace, canonical_json, fingerprint
from dmp_core.synthesis.own_images import Listing
from dmp_core.weights.resolve import identity, model_hash
from dmp_core.weights.settings import BaseConfig, EditorConfig

Inputs = dict[str, Artefact]
Shared = TypeVar("Shared")


# ------------------------------------------------------------------------------------- stages
@dataclass(frozen=True)
class StageKind:
    """Static properties of a stage."""

    name: str
    version: int
    """Increase it when the code changes the stage's output: its artefacts are then made again."""
    typical: tuple[float, float]
    """Seconds and bytes per sample on two CPU cores with the mini preset (`benchmarks/`), until a run is measured."""
    on_a_gpu: tuple[float, float]
    """The same for the paper preset (512 x 512 pixels) on one GPU of the A100 class, until a run is measured.
    All are estimates: by public figures, Stable Diffusion v1 with 50 guided steps in half precision takes 1.5 to
    2.5 s per image there, a LoRA step of batch 8 about half a second; the rest follows from counting passes."""
    folder: str = ""
    """In the workspace; the stage's name by default."""
    sharded: bool = False
    """Its artefacts are shards, which can be made again one by one."""
    chunked: bool = False
    """Several tasks or runs may make its shards at the same time; other stages write files that cover all shards."""
    stable: bool = False
    """Its artefacts have a readable path without a fingerprint."""

    def place(self, workspace: Workspace) -> str:
        """The folder of its artefacts."""
        return f"{workspace.root}/{self.folder or self.name}"

    def artefact(self, workspace: Workspace, name: str, known: str) -> Artefact:
        """known: its fingerprint."""
        folder = name if self.stable else f"{name}-{known}"
        return Artefact(workspace, self.name, name, known, f"{self.place(workspace)}/{folder}")


@dataclass
class StageResult:
    """What a stage returns: shard records (None: every file in the folder), samples, details for the manifest."""

    samples: int
    """Number of samples; with shards, skipped ones included: the artefact is complete once all are counted."""
    files: list[FileRecord] | None = None
    details: dict[str, Any] | None = None

    @property
    def made(self) -> int:
        """Number of samples, without skipped ones."""
        return self.samples - sum(len(record.skipped) for record in self.files or ())


class Run(Protocol):
    """The signature of every stage: a pure function of configuration and inputs that fills `out`."""

    def __call__(
        self,
        config: Any,
        inputs: Inputs,
        out: Artefact,
        *,
        runtime: RuntimeConfig,
        shards: Iterable[int] | None = None,
        progress: Progress = silent,
    ) -> StageResult: ...


# ----------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class ModelUse:
    """A model that a stage loads, from outside the package."""

    field: str
    """The setting that refers to it."""
    reference: str
    revision: str | None = None
    file: str = ""
    """The only file that is read from the folder, if known."""


class StageSettings(Settings):
    """The settings a stage reads: exactly these are fingerprinted, and stored in the manifest."""

    made_with: ClassVar[tuple[str, ...]] = ()
    """Roles of the inputs that what `shared` describes is made from."""

    def uses(self) -> Iterator[ModelUse]:
        """The models that it loads."""
        yield from ()

    @property
    def on_device(self) -> bool:
        """Whether it computes on `runtime.device`."""
        return any(self.uses())

    @property
    def shared(self) -> dict[str, Any] | None:
        """The settings that determine what artefacts of the stage can share, a model or processes; None: nothing."""
        return None

    @property
    def passes(self) -> int:
        """Passes through a U-Net per sample, in addition to the stage's other work."""
        return 0


class OfModality(StageSettings):
    """Settings of stages that work on one modality."""

    task: ModalityName
    """The modality's name; fingerprints use this field name."""
    own: OwnModality | None = since(None)
    """The modality's definition, if the configuration has one."""

    @property
    def modality(self) -> Modality:
        return find_modality(self.task, self.own)


class Coded(StageSettings):
    """How labels are encoded as images; unset values are omitted, and so are newer settings at their default."""

    depth_scale: float | None
    palette: str | None
    depth_curve: DepthCurve = since("linear")
    depth_clip: bool = since(True)

    @property
    def code(self) -> Code:
        known = [field.name for field in fields(Code) if field.name in type(self).model_fields]
        return Code(**{name: value for name in known if (value := getattr(self, name)) is not None})


GatesField = Annotated[Gates, Field(default_factory=dict, exclude_if=lambda gates: not gates)]
"""Only the gates that a stage applies; without any, its fingerprint does not contain the field."""


def pinned(stage: StageSettings, kind: type[StageSettings], uses: Iterable[ModelUse]) -> StageSettings:
    """The settings as `kind`, with the digest of their model if the registry or its files here give one.

    Other weights are then another artefact.
    """
    found = (model_hash(use.reference, use.revision, use.file) for use in uses)
    known = next((digest for digest in found if digest), None)
    return kind(**dict(stage) | {"model_hash": known}) if known else stage


def of_modality(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `OfModality`."""
    return {"task": modality.name, "own": config.own_modalities.get(modality.name)}


def code_of(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `Coded`: the two oldest for every modality, later ones only for modalities that read them."""
    code = config.latents.code
    return {"depth_scale": code.depth_scale, "palette": code.palette} | code_read(config, modality)


def code_read(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `Coded` that the modality's label images depend on."""
    code = config.latents.code
    names = modality.code_of(modality.encoding(code)).keys() & Coded.model_fields.keys()
    return {name: getattr(code, name) for name in names}


def base_hash(config: PipelineConfig) -> str:
    return identity(config.base.model, config.base.revision, "priors", field="base.model")


def decoder_of(config: PipelineConfig) -> dict[str, str]:
    """Setting `decoder_hash` of a stage that decodes latents; empty unless `sampling.decoder` names a network."""
    decoder = config.sampling.decoder
    return {} if decoder is None else {"decoder_hash": identity(decoder, None, "priors", field=DECODER)}


def decoders_of(nodes: Iterable[Node]) -> list[tuple[BaseConfig, str]]:
    """(base model, small decoder of its latents) of nodes that use one, each once."""
    configs: list[Any] = [node.config for node in nodes if getattr(node.config, "decoder_hash", None)]
    return list(dict.fromkeys((config.base, config.sampling.decoder) for config in configs))


def named_editor(config: PipelineConfig) -> dict[str, Any]:
    """Settings `editor` and `editor_hash` of a stage that uses the editor in the configuration."""
    editor = config.editor
    if not config.train.reads_editor or editor.model is None:
        return {}
    known = identity(editor.model, editor.revision, "priors", field="editor.model")
    return {"editor": EditorConfig(model=editor.model, revision=editor.revision), "editor_hash": known}


def editor_uses(editor: EditorConfig | None) -> Iterator[ModelUse]:
    if editor is not None and editor.model is not None:
        yield ModelUse("editor.model", editor.model, editor.revision)


def other_sources(config: PipelineConfig) -> list[Source]:
    """The sources of x, besides the configured one, with which predictions are scored."""
    wanted = config.evaluate.sources if config.train.method == "dmp" else []
    return [source for source in dict.fromkeys(wanted) if source != config.sampling.source]


def learns_from(config: PipelineConfig, modality: Modality) -> Needs:
    """What the configured method is trained on; nothing for a finished adapter."""
    return "nothing" if modality.name in config.adapters else find_method(config.train.fitted.method).needs


def latents_name(config: PipelineConfig, modality: Modality, column: str) -> str:
    """Name of the node that encodes a column (`image`, or the modality) at the modality's resolution."""
    resolution = config.latents.resolution_of(modality.name)
    return f"image-{resolution}" if column == "image" and resolution != config.latents.resolution else column


# --------------------------------------------------------------------------------------- plan
def share(
    kind: StageKind,
    config: StageSettings,
    inputs: Inputs,
    runtime: RuntimeConfig,
    make: Callable[[], AbstractContextManager[Shared]],
) -> AbstractContextManager[Callable[[], Shared]]:
    """As `Slot.lend`: what the last artefact worked with if that fits this one, else what `make` opens."""
    made_with = {role: source.published().content() for role, source in inputs.items() if role in config.made_with}
    key = [config.shared, made_with, runtime.model_dump(mode="json")]
    return SHARED.lend(kind.name, canonical_json(key), make)


@dataclass(frozen=True)
class Node:
    """One artefact to be made: its stage, that stage's settings, and its inputs."""

    kind: StageKind
    name: str
    config: StageSettings
    inputs: dict[str, Node] = field(default_factory=dict)
    samples: int = 0
    given: str | None = None
    """Fingerprint of an artefact that the plan reads and does not make."""
    alias: str = ""
    """Its name in the plan, if that has another node of the same name: artefacts are shared by name and fingerprint."""

    @property
    def stage(self) -> str:
        return self.kind.name

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.alias or self.name}"

    @cached_property
    def fingerprint(self) -> str:
        if self.given is not None:
            return self.given
        inputs = {role: node.fingerprint for role, node in self.inputs.items()}
        read = self.config.model_dump(mode="json", context={"fingerprint": True})
        return fingerprint(self.stage, self.kind.version, read, inputs)

    @cached_property
    def shares(self) -> str | None:
        """Equal for nodes whose artefacts can share what they are made with; None: with no other."""
        if self.config.shared is None:
            return None
        made_with = {role: node.fingerprint for role, node in self.inputs.items() if role in self.config.made_with}
        return canonical_json([self.stage, self.config.shared, made_with])

    @property
    def models(self) -> tuple[ModelUse, ...]:
        """The models it loads, except those that ship with this package or another one."""
        return tuple(use for use in self.config.uses() if not use.reference.startswith(("shipped:", "package:")))

    def artefact(self, workspace: Workspace) -> Artefact:
        return self.kind.artefact(workspace, self.name, self.fingerprint)


@dataclass
class Draft:
    """The plan under construction."""

    config: PipelineConfig
    listings: dict[str, Listing]
    """Split → its folder of images, for splits that are not generated."""
    keywords: dict[str, list[str]]
    """Split → keywords, for splits that are generated."""
    by_id: dict[str, Node] = field(default_factory=dict)

    def __getitem__(self, node_id: str) -> Node:
        return self.by_id[node_id]

    def get(self, node_id: str) -> Node | None:
        return self.by_id.get(node_id)

    def add(
        self,
        kind: StageKind,
        name: str,
        config: StageSettings,
        inputs: dict[str, Node] | None = None,
        samples: int = 0,
        alias: str = "",
    ) -> None:
        node = Node(kind, name, config, inputs or {}, samples, alias=alias)
        self.by_id.setdefault(node.id, node)

    def labels(self, split: str) -> dict[str, Node]:
        """The label columns of a split, by modality name."""
        columns = (node for node in self.by_id.values() if node.stage == "labels")
        return {
            node.config.task: node
            for node in columns
            if isinstance(node.config, OfModality) and node.name == f"{split}-{node.config.task}"
        }

    def made_editor(self) -> dict[str, Node]:
        """The node that makes the editor, by its role; empty if none is needed, or the settings name one."""
        made = self.get("editor/instruct")
        return {"editor": made} if made is not None else {}

    def scores(self, split: str, tables: Iterable[str]) -> dict[str, Node]:
        """The existing score tables of a split, by role."""
        found = {table: self.get(quality_node(split, table)) for table in tables}
        return {score_role(split, table): node for table, node in found.items() if node is not None}


def quality_node(split: str, table: str) -> str:
    """Id of the node that makes one score table: `image`, or a modality."""
    return f"quality/{split}" if table == IMAGE else f"quality/{split}-{table}"
