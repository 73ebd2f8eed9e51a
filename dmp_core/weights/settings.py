"""Settings that name models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dmp_core.diffusion.decoder import FIELD as DECODER
from dmp_core.settings import Settings


class NamedModel(Protocol):
    """Settings that name a model in diffusers' format."""

    setting: ClassVar[str]
    """Where it is named, for errors."""

    @property
    def model(self) -> str | None: ...

    @property
    def revision(self) -> str | None: ...


@dataclass(frozen=True)
class NamedDecoder:
    """What `sampling.decoder` names."""

    model: str
    setting: ClassVar[str] = DECODER
    revision: str | None = None


class BaseConfig(Settings):
    """The pre-trained text-to-image model that serves as the prior."""

    setting: ClassVar[str] = "base.model"
    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id, local folder, or `shipped:mini` for the prior in `data_manifests/priors/mini`."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None: the newest."""


class EditorConfig(Settings):
    """The model that edits images by instructions; InstructPix2Pix and VISII ask it."""

    setting: ClassVar[str] = "editor.model"
    model: str | None = "timbrooks/instruct-pix2pix"
    """Hub id, id of the registry, or local folder; in the format of diffusers' InstructPix2Pix pipeline. Its
    autoencoder must be the base model's. null: one is made from the base model, as `recipe` says."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None: the newest."""
    recipe: dict[str, Any] = {}
    """For `model: null`, laid over `data_manifests/editor_mini.yaml`, e.g. {fit: {steps: 200}}."""
