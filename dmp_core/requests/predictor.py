"""All modalities of a configuration on any images: one base model in memory, one adapter per modality.

Predictor.from_preset("mini")("photo.jpg")  # modality → array
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dmp_core.config import load_config
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.diffusion.card import AdapterCard
from dmp_core.diffusion.shipped import SHIPPED
from dmp_core.errors import InputError
from dmp_core.images import open_rgb, to_rgb
from dmp_core.modalities import Modality, find_modality, modality_names
from dmp_core.names import Precision
from dmp_core.weights.adapters import adapter_card, adapter_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from dmp_core.diffusion import DMPPipeline
    from dmp_core.diffusion.labels import Predicted
    from dmp_core.diffusion.latents import SharedLatents

ImageLike = Any
"""A path, a PIL image, or an array uint8 (H, W, 3)."""

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------ settings
@dataclass(frozen=True)
class Target:
    """One modality to predict: its adapter, and the configuration under which that is run."""

    modality: Modality
    adapter: str
    config: PipelineConfig


@dataclass(frozen=True)
class Manner:
    """How images are predicted, besides the configuration."""

    processing_res: int | None = None
    """Shorter side at which the networks work, pixels; None: the adapter's, and in tiles the image's own."""
    tile: int | None = None
    """Size of tiles at that resolution, pixels; None: the whole image at once."""
    overlap: int | None = None
    """Of neighbouring tiles, pixels; None: a fourth of a tile."""
    uncertainty: bool = False
    """Also predict the mirrored image, and keep how far the two predictions are apart."""

    def __post_init__(self) -> None:
        """Raises InputError for an overlap that fits no tile."""
        if self.overlap is not None and self.tile is None:
            raise InputError(f"--overlap {self.overlap}: only tiles overlap; give --tile as well")
        if self.overlap is not None and self.tile is not None and not 0 <= self.overlap < self.tile:
            raise InputError(f"--overlap {self.overlap}: give 0 or more, and less than the tile's {self.tile} pixels")

    def resolution(self, target: Target) -> int | None:
        if self.processing_res is not None or self.tile is not None:
            return self.processing_res
        return target.config.latents.resolution_of(target.modality.name)


def find_targets(
    preset: str = "mini",
    file: Path | None = None,
    overrides: list[str] | None = None,
    modalities: Sequence[str] = (),
    adapters: Sequence[str] = (),
) -> list[Target]:
    """What to predict: the given modalities, or all of the configuration, each with its adapter.

    adapters: one per modality, in their order; without modalities, each predicts what its card states. None at all: the
        configuration's, and those that ship for its base model.
    Raises InputError for a modality without an adapter, and as `prediction_config`.
    """
    if adapters:
        pairs = _named(adapters, modalities)
    else:
        config = load_config(preset, file, overrides)
        pairs = [(_adapter_of(config, name), name) for name in modalities or config.modalities]
    targets = []
    for adapter, name in pairs:
        found, modality = prediction_config(preset, file, overrides, adapter, name)
        targets.append(Target(modality, adapter, found))
    names = [target.modality.name for target in targets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"--modality, --adapter: {min(twice)} twice; give each modality once")
    return targets


def _named(adapters: Sequence[str], modalities: Sequence[str]) -> list[tuple[str, str | None]]:
    if modalities and len(modalities) != len(adapters):
        raise InputError(
            f"--adapter: {len(adapters)} for {len(modalities)} modalities; give one --adapter per --modality, or leave "
            "out --modality where the adapters' cards state it"
        )
    names: Sequence[str | None] = modalities or [None] * len(adapters)
    return list(zip(adapters, names, strict=True))


def _adapter_of(config: PipelineConfig, name: str) -> str:
    config.modality(name)  # an unknown name is an error that lists the known ones
    if (given := config.adapters.get(name)) is not None:
        return given
    if config.base.model == f"{SHIPPED}mini" and name in modality_names():
        return f"{SHIPPED}{name}"
    raise InputError(
        f"adapters.{name}: preset {config.preset} has no finished adapter for it; give --adapter FOLDER, or "
        f"--set adapters.{name}=FOLDER"
    )


def prediction_config(
    preset: str, file: Path | None, overrides: list[str] | None, adapter: str, name: str | None
) -> tuple[PipelineConfig, Modality]:
    """The configuration: the adapter's card overrides the preset, the user's own settings override both.

    name: the modality to predict; None: that of the card. Also returns that modality.
    Raises InputError if these contradict what the adapter learned, and if neither states what it predicts.
    """
    card = adapter_card(adapter, name)
    modality = _requested_modality(card, adapter, name)
    if modality is not None:
        card.check(adapter, modality)
    config = load_config(preset, file, overrides, _card_settings(card, modality))
    modality = modality or config.modality(str(name))
    card.check(adapter, modality, config.latents.code)
    if card.captioned and not config.sampling.use_prompt:
        log.warning(
            "%s: trained with captions, and run without; for better results write each image's into NAME.txt, and set "
            "sampling.use_prompt=true and sampling.guidance_scale=2", adapter,
        )  # fmt: skip
    return config, modality


def _requested_modality(card: AdapterCard, adapter: str, name: str | None) -> Modality | None:
    """None if only the configuration can define it."""
    if name is None and card.modality is None:
        raise InputError(f"{adapter}: its card does not state what it predicts; give --modality NAME")
    if name is None or name == card.task:
        return card.modality
    return find_modality(name) if name in modality_names() else None


def _card_settings(card: AdapterCard, modality: Modality | None) -> dict[str, Any]:
    """Settings in a card, under the configuration's field names; no caption is needed unless the user asks for it."""
    sampling: dict[str, Any] = {name: getattr(card, name) for name in ("num_steps", "source") if name in card.stated()}
    sampling["use_prompt"] = False
    if card.encoding.class_shares is None:
        sampling["colour_noise"] = None
    latents: dict[str, Any] = {} if modality is None else card.code_of(modality)
    latents.pop("axes", None)  # not a setting: prediction takes them from the card
    if card.resolution is not None:
        latents |= {"resolution": card.resolution, "resolutions": {}}
    published = {} if card.use_prompt is None else {"base": {"model": card.base}}
    return {"sampling": sampling, "latents": latents} | published


# ---------------------------------------------------------------------------------- prediction
@dataclass(frozen=True)
class Prediction:
    """One modality of one image; label and uncertainty are computed when first read."""

    target: Target
    found: Predicted
    """Of this image alone."""

    @property
    def label(self) -> NDArray[Any]:
        """In the image's size, channels last, in the units of `dmp_core.modalities`."""
        label: NDArray[Any] = self.found.labels[0]
        return label

    @property
    def uncertainty(self) -> NDArray[np.float64] | None:
        """Difference from the mirrored image's prediction, (H, W) in the unit of the modality's `error_scale`."""
        return None if self.found.difference is None else self.found.difference[0]


@dataclass
class Predictor:
    """Predicts all its targets; models are loaded at the first call, each base model once."""

    targets: Sequence[Target]
    manner: Manner = field(default_factory=Manner)
    _bases: dict[tuple[str, str], DMPPipeline] = field(default_factory=dict, repr=False)
    _pipelines: dict[tuple[str, str, str], DMPPipeline] = field(default_factory=dict, repr=False)

    @classmethod
    def from_preset(
        cls,
        preset: str = "mini",
        modalities: Sequence[str] = (),
        *,
        adapters: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        **manner: Any,
    ) -> Predictor:
        """All modalities of a preset, or the given ones, as `dmp predict` predicts them.

        adapters: modality → adapter folder or `shipped:NAME`, instead of the preset's.
        overrides: settings as `field.subfield=value`; e.g. `runtime.device=cuda`.
        manner: the fields of `Manner`.
        Raises InputError as `find_targets`.
        """
        own = [f"adapters.{name}={folder}" for name, folder in (adapters or {}).items()]
        names = modalities or list(adapters or {})
        return cls(find_targets(preset, None, [*overrides, *own], names), Manner(**manner))

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> dict[str, Any]:
        """Modality → its array for one image, or the list of its arrays for a list of images.

        With `uncertainty`, the keys `NAME.uncertainty` as well. Raises InputError that names the image.
        """
        if not isinstance(images, list | tuple):
            return {name: arrays[0] for name, arrays in self([images]).items()}
        found: dict[str, list[Any]] = {}
        for number, image in enumerate(images):
            name = image if isinstance(image, str | Path) else f"images[{number}]"
            for prediction in self.predict(read_image(image, name)[None], [str(name)])[0]:
                task = prediction.target.modality.name
                found.setdefault(task, []).append(prediction.label)
                if prediction.uncertainty is not None:
                    found.setdefault(f"{task}.uncertainty", []).append(prediction.uncertainty)
        return found

    def load(self) -> None:
        """Load all models, so that their errors come before any work."""
        for target in self.targets:
            self._pipeline(target, target.config.sampling.dtype)

    def predict(
        self,
        images: NDArray[np.uint8],
        names: Sequence[str],
        captions: Sequence[str] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[list[Prediction]]:
        """Per image, one prediction per target (None: all). Each size of the images is encoded once for all of them.

        images: (B, H, W, 3); names: for errors. What one image gives depends on the others by rounding only.
        Raises InputError that names the image, or, where several are at fault, the first.
        """
        shared = _Shared(images)
        columns = [self._predicted(target, shared, names, captions) for target in targets or self.targets]
        return [list(row) for row in zip(*columns, strict=True)]

    def _predicted(
        self,
        target: Target,
        shared: _Shared,
        names: Sequence[str],
        captions: Sequence[str] | None,
    ) -> list[Prediction]:
        from dmp_core.finite import finite_predictions
        from dmp_core.methods.dmp.predict import predict_all

        def predictions(numbers: Sequence[int], dtype: Precision) -> list[Prediction]:
            pipeline = self._pipeline(target, dtype)
            resolution = self._resolution(target, pipeline)
            found = predict_all(
                pipeline,
                shared.images[list(numbers)],
                target.modality,
                target.config.sampling,
                code=target.config.latents.code,
                resolution=resolution,
                prompts=None if captions is None else [captions[number] for number in numbers],
                encode=shared.latents_of(pipeline),
                pixels=shared.pixels(pipeline, resolution)[list(numbers)],
                tile=self.manner.tile,
                overlap=self.manner.overlap,
                difference=self.manner.uncertainty,
            )
            return [Prediction(target, one) for one in found.each()]

        own = partial(predictions, dtype=target.config.sampling.dtype)
        return finite_predictions(range(len(shared.images)), names, own, partial(predictions, dtype="float32"))

    def _resolution(self, target: Target, pipeline: DMPPipeline) -> int | None:
        found = self.manner.resolution(target)
        return found if found is not None or self.manner.tile is not None else pipeline.native_resolution

    def _pipeline(self, target: Target, dtype: Precision) -> DMPPipeline:
        """The base model with the target's adapter; the base model's weights are shared."""
        from dmp_core.methods.dmp.predict import with_adapter

        key = (_base_of(target), dtype, target.adapter)
        if key not in self._pipelines:
            adapter, compiled = adapter_folder(target.adapter), target.config.sampling.compile
            self._pipelines[key] = with_adapter(self._base(target, dtype), adapter, compiled=compiled)
        return self._pipelines[key]

    def _base(self, target: Target, dtype: Precision) -> DMPPipeline:
        import torch

        from dmp_core.weights.load import choose_device, load_base

        key = (_base_of(target), dtype)
        if key not in self._bases:
            device = choose_device(target.config.runtime.device)
            self._bases[key] = load_base(
                target.config.base, device, getattr(torch, dtype), target.config.sampling.decoder
            )
        return self._bases[key]


class _Shared:
    """Images of one size, and what several modalities need of them: each is computed once."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images
        self._latents: dict[int, SharedLatents] = {}
        self._pixels: dict[tuple[int, int | None], Tensor] = {}

    def latents_of(self, pipeline: DMPPipeline) -> SharedLatents:
        from dmp_core.diffusion.latents import SharedLatents

        return self._latents.setdefault(id(pipeline.vae), SharedLatents(pipeline.vae))

    def pixels(self, pipeline: DMPPipeline, resolution: int | None) -> Tensor:
        """The images' `working_images`."""
        from dmp_core.diffusion.labels import working_images
        from dmp_core.diffusion.latents import downscale_factor

        key = downscale_factor(pipeline.vae), resolution
        if key not in self._pixels:
            self._pixels[key] = working_images(pipeline.vae, self.images, resolution)
        return self._pixels[key]


def _base_of(target: Target) -> str:
    """What its networks, besides the adapter, are loaded from."""
    return f"{target.config.base.model_dump_json()} {target.config.sampling.decoder}"


def read_image(image: ImageLike, name: str | Path) -> NDArray[np.uint8]:
    """RGB, uint8 (H, W, 3). Raises InputError, which starts with `name`."""
    if isinstance(image, str | Path):
        return open_rgb(image, name)
    if isinstance(image, Image.Image):
        return to_rgb(image, name)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise InputError(f"{name}: {array.dtype} {array.shape}; give a path, a PIL image, or an array uint8 (H, W, 3)")
    return array
