"""Settings of an experiment: variants of one configuration, and the tables and figures that show them."""

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
    """Its name in tables and figures."""
    set: dict[str, Any] = {}
    """Overrides of the preset and the experiment's own settings."""
    per_base: dict[str, dict[str, Any]] = {}
    """Base model → overrides with this base model, by whatever name the configuration calls it: learning rates depend
    on the network."""
    per_preset: dict[str, dict[str, Any]] = {}
    """Preset → overrides with this preset: methods with their own settings do not read the preset's."""
    modalities: list[str] = []
    """Only these modalities; empty: all."""
    feeds: list[Name] = []
    """Tables and figures that show it."""
    series: str = ""
    """Series in plots: variants of one series are joined by a line."""
    paper: str | None = None
    """Its row in `paper_tables.csv`; None: the title."""
    at: float | None = None
    """Its position in plots against `at`, if what varies is not a numeric setting."""
    optional: bool = False
    """Omitted if the folder of its base model does not exist."""
    only_on: str | None = None
    """Omitted if the preset has another base model than this one."""
    presets: list[str] = []
    """Omitted with any other preset; empty: with none."""


class ScoreTableSpec(Settings):
    """A table of scores, one row per variant."""

    kind: Literal["table"] = "table"
    title: str
    layout: Literal["table1", "table2", "table3", "table4", "primary"]
    """One of the paper's tables, or `primary`: every modality's primary metric on every split."""


class OrderSpec(Settings):
    """Comparison of the variants' ranking with the paper's."""

    kind: Literal["order"] = "order"
    title: str
    tables: list[Literal["table1", "table2", "table3", "table4"]]


class CostSpec(Settings):
    """Costs of fitting and running each variant."""

    kind: Literal["costs"] = "costs"
    title: str


class GroupSpec(Settings):
    """Every modality's primary metric on parts of one split, and each variant's difference from the reference there."""

    kind: Literal["groups"] = "groups"
    title: str
    split: str
    field: str
    """Field of the images' metadata that defines the groups: `scene.stylised`, `keyword`."""
    names: dict[str, str]
    """Value of the field → name of the group; images with other values are omitted."""


class CurveSpec(Settings):
    """Error against one setting, a panel per modality, a line per split and series."""

    kind: Literal["curve"] = "curve"
    title: str
    x: str
    """The setting: `sampling.num_steps`; or `at`, the value that each variant states."""
    label: str


class GridSpec(Settings):
    """Grid of images: the input, then for every modality the label and each variant's prediction."""

    kind: Literal["grid"] = "grid"
    title: str
    modalities: list[str]
    splits: list[str]
    """Shown from left to right, if the preset has them."""
    per_split: PositiveInt = 4


OutputSpec = Annotated[
    ScoreTableSpec | OrderSpec | CostSpec | GroupSpec | CurveSpec | GridSpec, Field(discriminator="kind")
]


class Experiment(Settings):
    """One file of `data_manifests/experiments/`."""

    title: str
    preset: str
    """Default preset."""
    set: dict[str, Any] = {}
    """Overrides of the preset, for all variants."""
    reference: Name
    """The variant that the others are compared with, image by image."""
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
