"""The whole pipeline's configuration, and how it is put together from preset, file and flags."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from dmp_core.config.base import Settings, parse_yaml, raise_readable, read_yaml, shortened
from dmp_core.config.stages import (
    BaseConfig,
    DiffusionImages,
    EditorConfig,
    EvaluateConfig,
    ExactLabels,
    LabelsConfig,
    LatentsConfig,
    MethodSettings,
    ModalityName,
    PromptsConfig,
    QualityConfig,
    RenderImages,
    ReportConfig,
    RuntimeConfig,
    SamplingConfig,
    ShardsConfig,
    SplitConfig,
    TrainConfig,
)
from dmp_core.errors import InputError
from dmp_core.modalities import Modality, check_own, find_modality, modality_names
from dmp_core.modalities.base import Axes
from dmp_core.modalities.settings import OwnModality
from dmp_core.passwords import masked
from dmp_core.reading import is_utf8
from dmp_core.resources import manifest_path
from dmp_core.synthesis import PROVIDES

log = logging.getLogger(__name__)
_LONGEST_PATH = 20


class PipelineConfig(Settings):
    """Everything that `dmp run` needs; one preset or file holds one of these."""

    preset: str = "custom"
    """Where this configuration started from; informative only."""
    dataset: str = "bedrooms"
    """Name of the merged dataset under `datasets/`."""
    seed: int = 0
    """Seed of the dataset; every sample's own seed derives from it and the sample's key."""
    modalities: list[ModalityName]
    """What is labelled, learned and scored. Called `tasks` in older files."""
    own_modalities: dict[ModalityName, OwnModality] = Field(default={}, exclude_if=lambda own: not own)
    """Modalities that are not built in: name → what they are; see docs/modalities.md."""
    splits: dict[str, SplitConfig]
    """Splits by name; training reads `train`, the report scores all others."""
    prompts: PromptsConfig
    images: RenderImages | DiffusionImages = Field(discriminator="kind")
    """Where the images come from."""
    labels: dict[ModalityName, LabelsConfig]
    """Modality → its labeler: the renderer's truth (`exact`), or a predictor and its weights."""
    quality: QualityConfig = QualityConfig()
    shards: ShardsConfig = ShardsConfig()
    base: BaseConfig = BaseConfig()
    editor: EditorConfig = EditorConfig()
    latents: LatentsConfig = LatentsConfig()
    train: MethodSettings = TrainConfig()
    """Which method learns them, and how."""
    adapters: dict[ModalityName, str] = {}
    """Modalities that start from a finished adapter of DMP instead of training: a folder, or `shipped:NAME`."""
    sampling: SamplingConfig = SamplingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="before")
    @classmethod
    def _in_todays_words(cls, values: Any) -> Any:
        return renamed(values, "configuration") if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _consistent(self) -> PipelineConfig:
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError("modalities: name at least one, each once")
        check_own(self.own_modalities)
        if "/" in self.dataset or self.dataset.startswith("."):
            raise ValueError(f"dataset: {self.dataset!r} names a folder; no slashes and no leading dot")
        made = [name for name, split in self.splits.items() if not split.folder]
        for name in self.modalities:
            modality, labeler = self.modality(name), self.labeler(name)
            if labeler is None:
                raise ValueError(f"labels.{name}: no labeler is set, but it is one of `modalities`")
            if labeler.kind == "exact" and name not in PROVIDES:
                continue  # labels come with one's own images; `plan` sees whether they do
            if labeler.kind == "exact" and self.images.kind != "render" and made:
                raise ValueError(
                    f"labels.{name}: exact labels need rendered images (images.kind: render), or a folder that holds "
                    f"them (splits.{made[0]}.folder)"
                )
            gate = modality.flip_gate
            if getattr(self.quality, gate) is not None and not getattr(labeler, "check_flip", False):
                raise ValueError(f"quality.{gate}: needs labels.{name}.check_flip: true, which makes that score")
        given = self.splits["train"].count if "train" in self.splits else None
        if given and self.train.samples and self.train.samples > given:
            raise ValueError(
                f"train.samples: {self.train.samples}, but splits.train.count is {given}; lower it, or make more images"
            )
        if self.adapters and self.train.method != "dmp":
            raise ValueError(f"adapters: these are of DMP, but train.method is {self.train.method}; set adapters={{}}")
        if any(not name.replace("_", "").replace("-", "").isalnum() for name in self.splits):
            raise ValueError("splits: names may hold letters, digits and underscores, and hyphens before a part's name")
        return self

    def modality(self, name: str) -> Modality:
        """A modality that this configuration knows."""
        return find_modality(name, self.own_modalities.get(name))

    @property
    def chosen(self) -> list[Modality]:
        """Those of `modalities`."""
        return [self.modality(name) for name in self.modalities]

    @property
    def known(self) -> list[Modality]:
        """All that files beside images may be labels of."""
        found = [self.modality(name) for name in (*modality_names(), *self.own_modalities)]
        return [replace(m, file_axes=axes) if (axes := self.file_axes.get(m.name)) else m for m in found]

    @property
    def file_axes(self) -> dict[str, Axes]:
        """Modality → axes of its files that are imported, where they are not ours."""
        exact = {name: of for name, of in self.labels.items() if isinstance(of, ExactLabels)}
        return {name: of.axes for name, of in exact.items() if of.axes != "opengl"}

    def labeler(self, name: str) -> LabelsConfig | None:
        """What labels a modality: by default, of what no renderer provides, the files beside the images."""
        return self.labels.get(name) or (None if name in PROVIDES else ExactLabels())


_LONGEST = 60
"""Characters of an override that an error repeats."""


def preset_names() -> list[str]:
    return sorted(path.stem for path in manifest_path("presets").glob("*.yaml"))


def load_config(
    preset: str = "mini",
    file: str | Path | None = None,
    overrides: list[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> PipelineConfig:
    """Resolve preset < defaults < file < `a.b=value` overrides into one validated configuration.

    A file that says what it `extends` (a preset's name, or null: it is complete) is laid over that instead.
    Raises InputError that names the preset, file or field, and what would be right.
    """
    settings, source = merge(_resolve_parent(_read_preset(preset)), dict(defaults or {})), f"preset {preset}"
    if file is not None and "extends" in (own := renamed(read_yaml(file), str(file))):
        parent = _resolve_parent({"extends": own["extends"]})
        settings = merge(merge(parent, dict(defaults or {})), own)
        preset, source, file = settings.pop("extends") or preset, str(file), None
    return validate(*layered({"preset": preset} | settings, source, file, overrides))


def _read_preset(name: object, said: str = "") -> dict[str, Any]:
    """said: where it is named, for the error."""
    if name not in preset_names():
        raise InputError(f"{said}preset {shortened(name)} does not exist; choose one of: {', '.join(preset_names())}")
    return read_yaml(manifest_path("presets", f"{name}.yaml"))


def layered(
    settings: dict[str, Any], source: str, file: str | Path | None, overrides: list[str] | None
) -> tuple[dict[str, Any], str]:
    """Settings with a file, then `a.b=value` overrides laid over them, and what to call the whole in an error."""
    if file is not None:
        settings, source = merge(settings, renamed(read_yaml(file), str(file))), str(file)
    for override in overrides or []:
        settings = merge(settings, renamed(parse_override(override), f"--set {shortened(override)}"))
    if overrides:
        one = masked(overrides[0]) if len(overrides) == 1 else ""
        source = f"{source} with --set {one if len(one) <= _LONGEST else shortened(one)}".rstrip()
    return settings, source


def validate(settings: dict[str, Any], source: str) -> PipelineConfig:
    """Validate a plain mapping; `source` opens every line of the error."""
    try:
        return PipelineConfig.model_validate(settings)
    except ValidationError as error:
        raise_readable(error, source)


def renamed(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings in today's words, whatever version they were written for; one notice per process.

    Raises InputError where both words are used.
    """
    if "tasks" not in settings:
        return settings
    if "modalities" in settings:
        raise InputError(f"{source}: `tasks` is the older word for `modalities`; give one of the two")
    _notice()
    return {"modalities" if name == "tasks" else name: value for name, value in settings.items()}


@cache
def _notice() -> None:
    log.warning("`tasks` is read as `modalities`, the word that configurations use now")


def _resolve_parent(settings: dict[str, Any]) -> dict[str, Any]:
    """A preset may build on another one: `extends: mini`."""
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    return merge(_resolve_parent(_read_preset(parent, "extends: ")), settings)


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Deep merge; lists and changed kinds and methods replace, since half of another kind's fields is nonsense."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value)
            if isinstance(old, dict) and isinstance(value, dict) and value and _alike(old, value)
            else value
        )
    return merged


def _alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    kind, method = old.get("kind"), old.get("method", "dmp")
    return bool(new.get("kind", kind) == kind and new.get("method", method) == method)


def parse_override(text: str) -> dict[str, Any]:
    """`train.lora.rank=8` as a nested mapping; the value is read as YAML."""
    path, separator, value = text.partition("=")
    if not separator or not path.strip():
        raise InputError(f"--set {shortened(text)}: write it as field.subfield=value, e.g. --set train.steps=200")
    source = f"--set {shortened(text)}"
    nested = parse_yaml(value, source)
    parts = path.strip().split(".")
    if len(parts) > _LONGEST_PATH or not is_utf8(path):
        raise InputError(f"{source}: no such setting (see `dmp config show`)")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def dump(config: Settings) -> str:
    """The configuration as YAML, complete and in the order of the DAG."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=100, allow_unicode=True)
