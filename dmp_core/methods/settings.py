"""Settings that every method has."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    PositiveInt,
)

from dmp_core.modalities import Modality
from dmp_core.settings import Settings, since


class MethodConfig(Settings):
    """Settings that every method has; each method adds its own (`dmp_core.methods.protocol`)."""

    method: str
    """Its name in the registry of methods."""
    samples: PositiveInt | None = since(None)
    """Learn from the first n samples of the training split; None: from all."""

    @property
    def draws(self) -> int:
        """Samples that the fit sees, for estimates of time."""
        return 0

    @property
    def processes_of_fit(self) -> int | Literal["auto"]:
        """Processes that share the fit; see `FitConfig`."""
        return getattr(getattr(self, "fit", self), "processes", 1)

    @property
    def nodes_of_fit(self) -> int:
        """Machines that share the fit; see `FitConfig`."""
        return getattr(getattr(self, "fit", self), "nodes", 1)

    @property
    def reads_prompts(self) -> bool:
        """Whether the fit needs the captions."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether the fit needs the labels themselves, in addition to their latents."""
        return False

    @property
    def own_model(self) -> tuple[str, str, str | None] | None:
        """A model needed besides the base: the setting that refers to it, its reference, its revision."""
        return None

    @property
    def reads_editor(self) -> bool:
        """Whether it uses the model that `editor` refers to."""
        return False

    @property
    def fitted(self) -> MethodConfig:
        """The settings that the fit reads: no others cause a new fit, and methods with equal fits share one."""
        return self

    def for_modality(self, modality: Modality) -> MethodConfig:
        """Without settings that only other modalities read: changing those does not train again."""
        return self

    @property
    def inference(self) -> Settings | None:
        """The settings that prediction reads, besides `sampling`; None: nothing."""
        return None
