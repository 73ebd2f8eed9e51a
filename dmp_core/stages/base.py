"""What a stage is: a kind of artefact, settings, what it adds to the plan, and `run`. And the nodes of the plan.

A stage's module has

    KIND                    its name, version and folder, what its shards may be, typical rates
    class …(StageSettings)  what it reads: exactly this is fingerprinted, and stored in the manifest
    add(draft, …)           its nodes in the plan
    run(config, inputs, out, *, runtime, shards, progress) -> StageResult

and perhaps `announce(out)`, which brings up to date what is outside its artefact. Light to import: heavy libraries are
imported where `run` needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Protocol

from pydantic import Field

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.methods.protocol import Needs
from dmp_core.methods.registry import find_method
from dmp_core.modalities import Code, Modality, find_modality
from dmp_core.modalities.base import DepthCurve
from dmp_core.modalities.registry import ModalityName
from dmp_core.modalities.settings import OwnModality
from dmp_core.progress import Progress, silent
from dmp_core.quality.gates import IMAGE, Gates
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import Settings, since
from dmp_core.store import Artefact, FileRecord, Workspace, fingerprint
from dmp_core.synthesis.own_images import Listing
from dmp_core.weights.resolve import identity
from dmp_core.weights.settings import EditorConfig

Inputs = dict[str, Artefact]


# ------------------------------------------------------------------------------------- stages
@dataclass(frozen=True)
class StageKind:
    """What is known of a stage without running it."""

    name: str
    version: int
    """Raise it when the code changes what the stage writes: its artefacts are then made again."""
    typical: tuple[float, float]
    """Seconds and bytes per sample on two CPU cores with the mini preset (`benchmarks/`); first guess only."""
    on_a_gpu: tuple[float, float]
    """The same for the paper preset (512 x 512 pixels) on one GPU of the A100 class, until a run replaces it.
    Guesses, none measured: Stable Diffusion v1 with 50 guided steps in half precision takes 1.5 to 2.5 s per image
    there by public figures, a LoRA step of batch 8 about half a second; the rest follows from counting passes."""
    folder: str = ""
    """In the workspace; its name, unless given."""
    sharded: bool = False
    """Its artefacts are shards, which can be made again one by one."""
    chunked: bool = False
    """Several tasks or runs may make its shards at once; others write files that belong to all shards."""
    stable: bool = False
    """Its artefacts keep one readable path, whatever made them."""

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
    """Those that belong into it. Of shards, skipped ones included: it is complete once all are accounted for."""
    files: list[FileRecord] | None = None
    details: dict[str, Any] | None = None

    @property
    def made(self) -> int:
        """How many samples are there."""
        return self.samples - sum(len(record.skipped) for record in self.files or ())


class Run(Protocol):
    """The one shape of every stage: a pure function of configuration and inputs that fills `out`."""

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
    """The setting that names it."""
    reference: str
    revision: str | None = None
    file: str = ""
    """The only one that is read of a folder, if it is known."""


class StageSettings(Settings):
    """What a stage reads: exactly this is fingerprinted, and stored in the manifest."""

    def uses(self) -> Iterator[ModelUse]:
        """The models that it loads."""
        yield from ()

    @property
    def passes(self) -> int:
        """Through a U-Net, per sample, besides what else the stage does."""
        return 0


class OfModality(StageSettings):
    """What stages read that work on one modality."""

    task: ModalityName
    """The modality's name, by the word that fingerprints know."""
    own: OwnModality | None = since(None)
    """What it is, if the configuration describes it."""

    @property
    def modality(self) -> Modality:
        return find_modality(self.task, self.own)


class Coded(StageSettings):
    """How labels are images; what is not set of it is left out, and so are newer settings that have their default."""

    depth_scale: float | None
    palette: str | None
    depth_curve: DepthCurve = since("linear")
    depth_clip: bool = since(True)

    @property
    def code(self) -> Code:
        stated = {name: value for name in Coded.model_fields if (value := getattr(self, name)) is not None}
        return Code(**stated)


GatesField = Annotated[Gates, Field(default_factory=dict, exclude_if=lambda gates: not gates)]
"""The gates that a stage applies, and no others; without any, its fingerprint knows nothing of gates."""


def of_modality(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `OfModality`."""
    return {"task": modality.name, "own": config.own_modalities.get(modality.name)}


def code_of(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `Coded`: those that were first are stated of every modality, later ones of those that read them."""
    code = config.latents.code
    return {"depth_scale": code.depth_scale, "palette": code.palette} | code_read(config, modality)


def code_read(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """Settings of `Coded` that the modality's label images depend on."""
    code = config.latents.code
    names = modality.code_of(modality.encoding(code)).keys() & Coded.model_fields.keys()
    return {name: getattr(code, name) for name in names}


def base_hash(config: PipelineConfig) -> str:
    return identity(config.base.model, config.base.revision, "priors", field="base.model")


def named_editor(config: PipelineConfig) -> dict[str, Any]:
    """Settings `editor` and `editor_hash` of a stage that asks the editor that the configuration names."""
    editor = config.editor
    if not config.train.reads_editor or editor.model is None:
        return {}
    known = identity(editor.model, editor.revision, "priors", field="editor.model")
    return {"editor": EditorConfig(model=editor.model, revision=editor.revision), "editor_hash": known}


def editor_uses(editor: EditorConfig | None) -> Iterator[ModelUse]:
    if editor is not None and editor.model is not None:
        yield ModelUse("editor.model", editor.model, editor.revision)


def learns_from(config: PipelineConfig, modality: Modality) -> Needs:
    """What the configured method is fitted to; a finished adapter is fitted to nothing."""
    return "nothing" if modality.name in config.adapters else find_method(config.train.fitted.method).needs


def latents_name(config: PipelineConfig, modality: Modality, column: str) -> str:
    """Name of the node that encodes a column (`image`, or the modality) at the modality's resolution."""
    resolution = config.latents.resolution_of(modality.name)
    return f"image-{resolution}" if column == "image" and resolution != config.latents.resolution else column


# --------------------------------------------------------------------------------------- plan
@dataclass(frozen=True)
class Node:
    """One artefact to be made: the stage that makes it, what that stage reads, and what it is made from."""

    kind: StageKind
    name: str
    config: StageSettings
    inputs: dict[str, Node] = field(default_factory=dict)
    samples: int = 0
    given: str | None = None
    """Fingerprint of an artefact that the plan reads and does not make."""

    @property
    def stage(self) -> str:
        return self.kind.name

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.name}"

    @cached_property
    def fingerprint(self) -> str:
        if self.given is not None:
            return self.given
        inputs = {role: node.fingerprint for role, node in self.inputs.items()}
        read = self.config.model_dump(mode="json", context={"fingerprint": True})
        return fingerprint(self.stage, self.kind.version, read, inputs)

    @property
    def models(self) -> tuple[ModelUse, ...]:
        """What it loads, but what ships with this package or another one."""
        return tuple(use for use in self.config.uses() if not use.reference.startswith(("shipped:", "package:")))

    def artefact(self, workspace: Workspace) -> Artefact:
        return self.kind.artefact(workspace, self.name, self.fingerprint)


@dataclass
class Draft:
    """The plan under construction."""

    config: PipelineConfig
    listings: dict[str, Listing]
    """Split → its folder of images, where they are not generated."""
    keywords: dict[str, list[str]]
    """Split → keywords, where its images are generated."""
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
    ) -> Node:
        node = Node(kind, name, config, inputs or {}, samples)
        return self.by_id.setdefault(node.id, node)

    def labels(self, split: str) -> dict[str, Node]:
        """The label columns of a split, by their modality's name."""
        columns = (node for node in self.by_id.values() if node.stage == "labels")
        return {
            node.config.task: node
            for node in columns
            if isinstance(node.config, OfModality) and node.name == f"{split}-{node.config.task}"
        }

    def made_editor(self) -> dict[str, Node]:
        """The node that makes the editor, by its role; nothing where none is asked, or the settings name one."""
        made = self.get("editor/instruct")
        return {"editor": made} if made is not None else {}

    def scores(self, split: str, tables: Iterable[str]) -> dict[str, Node]:
        """The score tables that there are of a split, by role."""
        found = {table: self.get(quality_node(split, table)) for table in tables}
        return {f"quality_{split}_{table}": node for table, node in found.items() if node is not None}


def quality_node(split: str, table: str) -> str:
    """Id of the node that makes one score table: `image`, or a modality."""
    return f"quality/{split}" if table == IMAGE else f"quality/{split}-{table}"
