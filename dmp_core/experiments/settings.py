"""What an experiment is: variants of one configuration, and the tables and figures that they feed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from dmp_core.errors import InputError
from dmp_core.resources import manifest_path
from dmp_core.settings import Settings, raise_readable, read_yaml

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Variant(Settings):
    """One row of the tables: the preset with something changed. Data, labels and latents are shared by all."""

    title: str
    """What tables and figures call it."""
    set: dict[str, Any] = {}
    """Laid over the preset and the experiment's own settings."""
    per_base: dict[str, dict[str, Any]] = {}
    """Base model → laid over that where it is the base: learning rates depend on the network."""
    per_preset: dict[str, dict[str, Any]] = {}
    """Preset → laid over that where it is the one: methods with settings of their own do not read the preset's."""
    modalities: list[str] = []
    """Only these; empty: all."""
    feeds: list[Name] = []
    """Tables and figures that show it."""
    series: str = ""
    """Of the plots: variants of one series are joined by a line."""
    paper: str | None = None
    """Its row in `paper_tables.csv`; None: the title."""
    at: float | None = None
    """Its place in plots against `at`, where what is varied is no setting with a number."""
    optional: bool = False
    """Left out while the folder of its base model is not there."""
    only_on: str | None = None
    """Left out where the preset has another base model than this one."""


class ScoreTableSpec(Settings):
    """A table of scores, one row a variant."""

    kind: Literal["table"] = "table"
    title: str
    layout: Literal["table1", "table2", "table3", "table4", "primary"]
    """One of the paper's, or `primary`: every modality's primary metric on every split."""


class OrderSpec(Settings):
    """Whether the variants rank as the paper's rows do."""

    kind: Literal["order"] = "order"
    title: str
    tables: list[Literal["table1", "table2", "table3", "table4"]]


class CostSpec(Settings):
    """What each variant took to fit and takes to run."""

    kind: Literal["costs"] = "costs"
    title: str


class GroupSpec(Settings):
    """Every modality's primary metric on parts of one split, and how far each variant is from the reference there."""

    kind: Literal["groups"] = "groups"
    title: str
    split: str
    field: str
    """Of the images' metadata, by which they are told apart: `scene.stylised`, `keyword`."""
    names: dict[str, str]
    """Value of the field → what its images are called; others are left out."""


class CurveSpec(Settings):
    """Error against one setting, a panel per modality, a line per split and series."""

    kind: Literal["curve"] = "curve"
    title: str
    x: str
    """The setting: `sampling.num_steps`; or `at`, what the variants themselves say."""
    label: str


class GridSpec(Settings):
    """Pictures: the image, then for every modality the label and each variant's prediction."""

    kind: Literal["grid"] = "grid"
    title: str
    modalities: list[str]
    splits: list[str]
    """Shown from left to right, where the preset has them."""
    per_split: PositiveInt = 4


OutputSpec = Annotated[
    ScoreTableSpec | OrderSpec | CostSpec | GroupSpec | CurveSpec | GridSpec, Field(discriminator="kind")
]


class Experiment(Settings):
    """One file of `data_manifests/experiments/`."""

    title: str
    preset: str
    """Unless another one is asked for."""
    set: dict[str, Any] = {}
    """Laid over the preset, for all variants."""
    reference: Name
    """The variant that the others are held against, image by image."""
    variants: dict[Name, Variant]
    outputs: dict[Name, OutputSpec]

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.reference not in self.variants:
            raise ValueError(f"reference: {self.reference!r} is not among the variants")
        for name, variant in self.variants.items():
            if unknown := set(variant.feeds) - self.outputs.keys():
                raise ValueError(f"variants.{name}.feeds: no such output: {', '.join(sorted(unknown))}")
        return self


def experiment_names() -> list[str]:
    return sorted(path.stem for path in manifest_path("experiments").glob("*.yaml"))


def load_experiment(name: str) -> Experiment:
    """An experiment by name; raises InputError naming the file and field if it is not a valid one."""
    if name not in experiment_names():
        raise InputError(f"experiment {name!r} does not exist; choose one of: {', '.join(experiment_names())}")
    path = manifest_path("experiments", f"{name}.yaml")
    try:
        return Experiment.model_validate(read_yaml(path))
    except ValidationError as error:
        raise_readable(error, str(path))
