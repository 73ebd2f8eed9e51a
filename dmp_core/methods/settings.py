"""What the settings of every method have."""

from __future__ import annotations

from pydantic import (
    PositiveInt,
)

from dmp_core.modalities import Modality
from dmp_core.settings import Settings, since


class MethodConfig(Settings):
    """What the settings of every method have; each method adds its own (`dmp_core.methods.protocol`)."""

    method: str
    """Its name in the registry of methods."""
    samples: PositiveInt | None = since(None)
    """Learn from the first so many samples of the training split; None: from all."""

    @property
    def draws(self) -> int:
        """Samples that the fit sees, for estimates of time."""
        return 0

    @property
    def reads_prompts(self) -> bool:
        """Whether the fit needs the captions."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether the fit needs the labels themselves, beside their latents."""
        return False

    @property
    def own_model(self) -> tuple[str, str, str | None] | None:
        """A model of its own besides the base: the setting that names it, its reference, its revision."""
        return None

    @property
    def reads_editor(self) -> bool:
        """Whether it asks the model that `editor` names."""
        return False

    @property
    def fitted(self) -> MethodConfig:
        """What the fit reads, and no more: all else trains nothing anew, and methods whose fits agree share one."""
        return self

    def for_modality(self, modality: Modality) -> MethodConfig:
        """Without what only other modalities read, so that it trains nothing again."""
        return self

    @property
    def inference(self) -> Settings | None:
        """What prediction reads of these settings, besides `sampling`; None: nothing."""
        return None
