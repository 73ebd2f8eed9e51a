"""The whole configuration: the packages' settings in one model, and the checks across them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from dmp_core.dataset.settings import ShardsConfig, SplitConfig
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.labelers.settings import ExactLabels, LabelsConfig
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.methods.registry import MethodSettings
from dmp_core.modalities import Modality, check_own, find_modality, modality_names
from dmp_core.modalities.base import Axes
from dmp_core.modalities.registry import ModalityName, with_axes
from dmp_core.modalities.settings import OwnModality
from dmp_core.overrides import renamed
from dmp_core.prompts.settings import PromptsConfig
from dmp_core.quality.settings import QualityConfig
from dmp_core.render import PROVIDES
from dmp_core.report.settings import ReportConfig
from dmp_core.runtime import RuntimeConfig
from dmp_core.scoring.settings import EvaluateConfig
from dmp_core.settings import Settings, since
from dmp_core.synthesis.settings import DiffusionImages, RenderImages
from dmp_core.training.settings import LatentsConfig
from dmp_core.weights.settings import BaseConfig, EditorConfig


class PipelineConfig(Settings):
    """All settings of `dmp run`; a preset or file contains one of these."""

    preset: str = "custom"
    """The preset that this configuration is based on; informative only."""
    dataset: str = "bedrooms"
    """Name of the merged dataset under `datasets/`."""
    seed: int = 0
    """Seed of the dataset; every sample's own seed derives from it and the sample's key."""
    modalities: list[ModalityName]
    """Modalities to label, learn and score. Called `tasks` in older files."""
    own_modalities: dict[ModalityName, OwnModality] = since({})
    """Modalities that are not built in: name → definition; see docs/modalities.md."""
    splits: dict[str, SplitConfig]
    """Splits by name; training reads `train`, the report scores all others."""
    prompts: PromptsConfig
    images: RenderImages | DiffusionImages = Field(discriminator="kind")
    """Source of the images."""
    labels: dict[ModalityName, LabelsConfig]
    """Modality → its labeler: the renderer's truth (`exact`), or a predictor and its weights."""
    quality: QualityConfig = QualityConfig()
    shards: ShardsConfig = ShardsConfig()
    base: BaseConfig = BaseConfig()
    editor: EditorConfig = EditorConfig()
    latents: LatentsConfig = LatentsConfig()
    train: MethodSettings = TrainConfig()
    """The method that learns the modalities, and its settings."""
    adapters: dict[ModalityName, str] = {}
    """Modalities that start from a finished adapter of DMP instead of training: a folder, or `shipped:NAME`."""
    sampling: SamplingConfig = SamplingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="before")
    @classmethod
    def _rename_old_fields(cls, values: Any) -> Any:
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
                continue  # labels come with your own images; `plan` checks whether they do
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
            raise ValueError(f"adapters: these are for DMP, but train.method is {self.train.method}; set adapters={{}}")
        if any(not name.replace("_", "").replace("-", "").isalnum() for name in self.splits):
            raise ValueError("splits: names may hold letters, digits and underscores, and hyphens before a part's name")
        return self

    @model_validator(mode="after")
    def _can_judge_images(self) -> PipelineConfig:
        if self.images.patience and self.images.kind != "render" and self.quality.min_clip_score is None:
            raise ValueError(
                "images.patience: only the CLIP score shows what images of a diffusion model miss; set "
                "quality.clip_model and quality.min_clip_score, or images.patience to 0"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_decode_classes(self) -> PipelineConfig:
        nearest = self.latents.colour_space != "rgb" or self.latents.decoded_classes != "seen"
        if nearest and self.sampling.colour_noise is not None:
            raise ValueError(
                "sampling.colour_noise: chooses classes by likelihood, not by the nearest colour; set it to null, or "
                "latents.colour_space to rgb and latents.decoded_classes to seen"
            )
        return self

    def modality(self, name: str) -> Modality:
        """A built-in modality, or one that this configuration defines."""
        return find_modality(name, self.own_modalities.get(name))

    @property
    def chosen(self) -> list[Modality]:
        """Those of `modalities`."""
        return [self.modality(name) for name in self.modalities]

    @property
    def known(self) -> list[Modality]:
        """All modalities that label files next to images may have."""
        found = [self.modality(name) for name in (*modality_names(), *self.own_modalities)]
        return [with_axes(m, self.file_axes.get(m.name, m.file_axes)) for m in found]

    @property
    def file_axes(self) -> dict[str, Axes]:
        """Modality → axes of its imported files, if they differ from ours."""
        exact = {name: of for name, of in self.labels.items() if isinstance(of, ExactLabels)}
        return {name: of.axes for name, of in exact.items() if of.axes != "opengl"}

    def labeler(self, name: str) -> LabelsConfig | None:
        """The labeler of a modality; by default the files next to the images, if no renderer provides it."""
        return self.labels.get(name) or (None if name in PROVIDES else ExactLabels())
