"""A modality, the quantity predicted per pixel, with everything about it: one object, so that a modality is one file.

Arrays are channels last: (H, W) for class ids and scalar maps, (H, W, 3) for colours and vectors; batches have one
more axis in front. Light to import: no torch before a method needs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.evaluation.colours import Space
from dmp_core.store import open_image

if TYPE_CHECKING:
    from torch import Tensor

    from dmp_core.evaluation.bootstrap import Statistic

Array = NDArray[Any]
Classes = Iterable[int] | Mapping[int, float] | None
"""Ids to choose among, optionally with their shares of all pixels; None: all ids."""


@dataclass(frozen=True)
class Metric:
    """One number that the protocol reports."""

    name: str
    label: str
    description: str
    higher_is_better: bool = False
    unit: str = ""
    paper: str = ""
    """The paper's table that reports it, as `Table 1`; empty for our own metrics."""
    form: Literal["correct", "dmp_compat"] = "correct"
    """`dmp_compat` repeats the published code's formula, including its faults, so that tables can be compared."""
    level: Literal["image", "dataset"] = "image"
    """`image`: mean of per-image values. `dataset`: from areas summed over all images."""
    decimals: int = 3
    brief: bool = True
    """Shown in the report's main tables; the others are in `metrics.json`."""
    version: int = 1
    """Increase it when the metric's values change: evaluations that contain it are then made again."""

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    def better(self, one: float, other: float) -> bool:
        """True when `one` is strictly the better value."""
        return one > other if self.higher_is_better else one < other


@dataclass(frozen=True)
class ErrorScale:
    """Quantity of an error map, and the error at which its colour saturates."""

    label: str
    maximum: float
    unit: str = ""
    two_valued: bool = False

    @property
    def range_text(self) -> str:
        return "right or wrong" if self.two_valued else f"0 – {self.maximum:g}{self.unit}"


@dataclass(frozen=True)
class CardText:
    """Text of the dataset card about a modality's member."""

    stored: str
    meaning: str
    snippet: str
    """Line of Python that decodes `sample[member]`, given `np`, `io` and `Image`."""
    category: str = "image-to-image"
    """Task category of the Hugging Face hub."""


@dataclass(frozen=True)
class Published:
    """How the paper's authors publish adapters of a modality: without a card."""

    words: tuple[str, ...]
    """First words of their folders' names, before a hyphen."""
    encoding: Mapping[str, Any] = field(default_factory=dict)
    """What a card would state about the encoding of their images, besides the defaults."""


DepthCurve = Literal["linear", "log", "sqrt"]
DecodedClasses = Literal["seen", "paper"]
"""`seen`: those of the training labels. `paper`: the paper's 29 bedroom classes, all others black, as published."""
Axes = Literal["opengl", "opencv", "directx", "unity"]
"""Of vectors. x points right; y and z: up and toward the viewer (ours), down and away, down and toward, up and away."""


@dataclass(frozen=True)
class Code:
    """Encoding of labels as images for the VAE, from the configuration (`latents`)."""

    depth_scale: float = 8.0
    """Depth that becomes white, metres."""
    depth_curve: DepthCurve = "linear"
    """How grey levels grow with depth."""
    depth_clip: bool = True
    """Whether depths above `depth_scale` become white; False: brighter than white."""
    palette: str = "default"
    """Colour code of the ADE20K-150 classes."""
    axes: Axes = "opengl"
    """Axes of the vectors in predicted images; training images use ours."""
    colour_space: Space = "rgb"
    """Where the nearest of the palette's colours is searched; only for decoding."""
    decoded_classes: DecodedClasses = "seen"
    """The ADE20K-150 classes that a predicted colour may be of; only for decoding."""


class MeanMap(Protocol):
    """Collects labels of one size, and returns the best single map; None when nothing was labelled."""

    def __call__(self, label: Array) -> None: ...

    def result(self) -> Array | None: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Modality(ABC):
    """A quantity predicted per pixel. The three kinds implement most of it; see docs/modalities.md."""

    channels: ClassVar[int]
    """1 or 3."""

    name: str
    title: str
    short: str
    """Short title."""
    member: str
    """Name of its member in a shard, after the sample's key."""
    metrics: tuple[Metric, ...]
    """The first is the primary one: it decides whether a row beats the constant predictor."""
    error_scale: ErrorScale
    card: CardText
    instruction: str
    """The instruction for models that edit by instructions."""
    flip_gate: str
    """Field of the configuration's `quality` with the bound on the score of `check_flip`."""
    gates: tuple[str, ...]
    """Fields of the configuration's `quality` with bounds on its scores, except `flip_gate`."""
    quality_scores: Mapping[str, type] = field(default_factory=dict)
    """Result of `quality`: score → its type."""
    suffixes: tuple[str, ...] = (".png",)
    """Suffixes of label files that may be imported."""
    file_axes: Axes = "opengl"
    """Axes of vectors in imported label files."""
    published: Published | None = None
    """None: the paper has no such modality."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """Its entry in the configuration's `own_modalities`; empty: built in, or from a package."""
    has_classes: ClassVar[bool] = False
    """Whether a pixel has one class of several: there is nothing between two values, and latents do not state the
    classes."""

    # ---------------------------------------------------------------------------------- files
    @property
    def word(self) -> str:
        """The part of a label file's name between the image's name and the suffix."""
        return self.member.partition(".")[0]

    @abstractmethod
    def encode(self, array: Array) -> bytes:
        """One label as a file of the dataset. The same array gives the same bytes.

        Raises InputError on a wrong shape, on NaN, and on ids or values outside their range.
        """

    @abstractmethod
    def decode(self, data: bytes) -> Array:
        """The inverse of `encode`. Raises InputError when the bytes are not a file of the modality."""

    @abstractmethod
    def codes(self, label: Array) -> Array:
        """Labels, one or a batch, as the numbers in their files: uint8 codes, float16 values, or ids."""

    @abstractmethod
    def from_codes(self, codes: Array) -> Array:
        """The inverse, before any repair."""

    def truth(self, label: Array) -> Array:
        """The label as kept with its image until it is written: no coarser than the file."""
        return np.ascontiguousarray(self.codes(label))

    def stored(self, data: bytes) -> Array:
        """The label as it is in the file, before any repair by decoding."""
        return self.decode(data)

    def imported(self, data: bytes, suffix: str) -> Array:
        """A label file of the user, which may use other formats than ours; raises InputError as `decode`."""
        return self.decode(data)

    def unrepaired(self, label: Array, data: bytes) -> Array:
        """A label of the user as it is in its file, for scores: before any repair by reading."""
        return label

    def turned(self, label: Array, axes: Axes) -> Array:
        """A label whose vectors have these axes, converted to ours."""
        return label

    @property
    def stored_values(self) -> str:
        """The numbers in its files, for messages."""
        return "0 to 255"

    def check_stored(self, data: bytes) -> None:  # noqa: B027 (most have nothing to check)
        """Raise InputError if a label decodes but cannot be valid."""

    # ------------------------------------------------------------------------------- geometry
    @abstractmethod
    def checked(self, array: Array, batch: bool = False) -> Array:
        """The array, with its shape and values checked; raises InputError."""

    @abstractmethod
    def valid(self, label: Array) -> NDArray[np.bool_]:
        """The pixels of labels (…, H, W[, 3]) that have a label: (…, H, W)."""

    @abstractmethod
    def resize(self, label: Array, size: tuple[int, int]) -> Array:
        """One label (H, W[, 3]) at `size` = (height, width)."""

    def mirror(self, label: Array) -> Array:
        """The label of the mirrored image: a new array of the same dtype. label: (H, W[, 3]) or a batch of them."""
        return np.flip(label, -2 if self.channels == 3 else -1).copy()

    def mirror_image(self, images: Array) -> Array:
        """The same for label images (B, H, W, 3): floats in [-1, 1], or uint8 codes."""
        return np.flip(images, -2).copy()

    def channels_last(self, array: Array) -> Array:
        """A batch as (N, H, W, 3) or (N, H, W), from either layout; raises InputError when the shape fits neither.

        Images are at least 4 pixels wide, so a 3 is the channel axis.
        """
        array = np.asarray(array)
        if self.channels == 3:
            if array.ndim == 4 and array.shape[-1] == 3:
                return array
            if array.ndim == 4 and array.shape[1] == 3:
                return np.moveaxis(array, 1, -1)
            raise InputError(f"{self.name}: expected images (H, W, 3), found shape {array.shape[1:]}")
        if array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]):
            array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
        if array.ndim != 3:
            raise InputError(f"{self.name}: expected images (H, W), found shape {array.shape[1:]}")
        return array

    def image_channels_last(self, array: Array) -> Array:
        """The same for one image: (H, W, 3) or (H, W)."""
        return self.channels_last(np.asarray(array)[None])[0]

    # -------------------------------------------------------------------------------- the VAE
    def to_image(self, label: Array, code: Code) -> Tensor:
        """A batch of labels as the three-channel images that the VAE encodes: (B, 3, H, W) float32 in [-1, 1]."""
        import torch

        values = self._unit_range(self.checked(np.asarray(label), batch=True), code)
        if values.ndim == 3:
            values = np.repeat(values[..., None], 3, axis=-1)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values * 2 - 1, -1, 1), dtype=np.float32))

    def from_image(self, image: Tensor, code: Code, *, classes: Classes = None, noise: float | None = None) -> Array:
        """The inverse: labels, channels last, from decoded images (B, 3, H, W), nominally in [-1, 1].

        classes, noise: read by class maps, see `ClassMap`.
        Raises `NotFinite` on NaN and infinity, which would become plausible labels.
        """
        from dmp_core.finite import check_outputs

        check_outputs(image)
        return self._from_values(np.moveaxis(image.detach().float().cpu().numpy(), 1, -1), code, classes, noise)

    def from_image_at(
        self, image: Tensor, size: tuple[int, int], code: Code, *, classes: Classes = None, noise: float | None = None
    ) -> Array:
        """The same at `size` = (height, width), whatever size the images were decoded in."""
        labels = self.from_image(image, code, classes=classes, noise=noise)
        return np.stack([self.resize(label, size) for label in labels])

    @abstractmethod
    def _unit_range(self, label: Array, code: Code) -> Array:
        """Labels as colours or grey levels in [0, 1]."""

    @abstractmethod
    def _from_values(self, values: Array, code: Code, classes: Classes, noise: float | None) -> Array:
        """Labels from decoded images (B, H, W, 3), nominally in [-1, 1], all finite."""

    def classes_in(self, label: Array) -> list[int] | None:
        """The classes of one label; None for modalities without classes."""
        return None

    def encoding(self, code: Code) -> dict[str, Any]:
        """What an adapter's card states about the encoding of its images, besides the defaults."""
        return {}

    def code_of(self, encoding: Mapping[str, Any]) -> dict[str, Any]:
        """The card's statements as fields of `Code`: the inverse of `encoding`."""
        return {}

    # ----------------------------------------------------------------------------- evaluation
    @property
    def primary_metric(self) -> Metric:
        return self.metrics[0]

    @property
    def image_metric(self) -> Metric:
        """The per-image metric that ranks single images (best, median, worst)."""
        return self.primary_metric

    def metric(self, name: str) -> Metric:
        """Look up a metric; raises InputError naming the ones that exist."""
        for candidate in self.metrics:
            if candidate.name == name:
                return candidate
        names = ", ".join(m.name for m in self.metrics)
        raise InputError(f"metric {name!r} does not exist for {self.name}; choose one of: {names}")

    def tensor(self, array: Array) -> Tensor:
        """A batch as the metrics need it: float64, (N, C, H, W), on torch's default device.

        Single precision would lose digits of the published angle, which is an arccos near 1; on a GPU it would save
        nothing that matters.
        """
        import torch

        array = self.channels_last(array)
        array = np.moveaxis(array, -1, 1) if self.channels == 3 else array[:, None]
        plain = array if array.dtype in (np.float32, np.float64, np.uint8) else array.astype(np.float64)
        moved = torch.from_numpy(np.ascontiguousarray(plain)).to(torch.get_default_device())
        return moved.double()

    @abstractmethod
    def scores(self, pred: Array, true: Array) -> dict[str, NDArray[np.float64]]:
        """Every per-image metric of predictions (N, …) against labels of the same shape: name → (N,)."""

    def areas(self, pred: Array, true: Array) -> NDArray[np.int64] | None:
        """Input of the dataset-level metrics, (N, K, 3); None if there are no such metrics."""
        return None

    def scores_and_areas(
        self, pred: Array, true: Array
    ) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64] | None]:
        """Both, for kinds that compute one from the other."""
        return self.scores(pred, true), self.areas(pred, true)

    def area_statistic(self, areas: NDArray[np.int64], name: str) -> Statistic:
        """One dataset-level metric as a function of resample weights."""
        raise InputError(f"metric {name!r}: {self.name} has no metric of the whole dataset")

    # -------------------------------------------------------------------------- blind predictors
    @abstractmethod
    def constant(self, labels: Iterable[Array]) -> NDArray[np.float64]:
        """The best single value for all pixels: () or (3,); NaN where nothing is labelled. Labels are read once."""

    def constant_like(self, value: NDArray[np.float64], true: Array) -> Array:
        """The constant as predictions for labels (N, …), in their layout."""
        true = np.asarray(true)
        if self.channels == 3 and true.shape[-1] != 3:
            value = np.reshape(value, (3, 1, 1))
        return np.broadcast_to(np.asarray(value, dtype=np.float64), true.shape)

    @abstractmethod
    def mean_map(self) -> MeanMap:
        """Collects the best single map for all images."""

    # -------------------------------------------------------------------------------- quality
    @abstractmethod
    def quality(self, label: Array) -> dict[str, Any]:
        """Scores of one label as it is stored, by the names of `quality_scores`; None where no pixel is usable."""

    @abstractmethod
    def flip_difference(self, label: Array, mirrored: Array) -> float:
        """Distance between a labeler's output for the mirrored image, mirrored back, and its output for the image."""

    @property
    def flip_score(self) -> str:
        """Name of the score that `flip_gate` bounds."""
        return f"flip_{self.flip_unit}"

    @property
    def flip_unit(self) -> str:
        return self.flip_gate.split("_", 2)[2]

    # ------------------------------------------------------------------------------- renderings
    @abstractmethod
    def colourise(self, label: Array, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        """Render one label (H, W[, 3]): (H, W, 3) uint8. span: range of values, for colours relative to one."""

    def span(self, labels: Sequence[Array]) -> tuple[float, float] | None:
        """A common range for rendering several labels; None where colours always mean the same."""
        return None

    @abstractmethod
    def error_map(self, pred: Array, true: Array) -> NDArray[np.float64]:
        """Per-pixel error (H, W) in the unit of `error_scale`; NaN where there is no label."""

    @property
    def picture_key(self) -> str:
        """Short legend of its colours; empty where none is needed."""
        return ""

    @property
    def flat(self) -> bool:
        """Whether its renderings have few colours, so that resampling must not add others."""
        return False

    def card_section(self) -> str:
        """An extra section of the dataset card; empty: none."""
        return ""


# -------------------------------------------------------------------------------------- helpers
def read_png(data: bytes, name: str, mode: str) -> Array:
    """Pixels of a PNG; raises InputError unless the file has this mode."""
    try:
        image = open_image(data, ("PNG",))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    # Any other mode would have to be converted, and conversion changes ids and values.
    if image.mode != mode:
        raise InputError(f"{name}: expected an 8-bit {mode} image, found mode {image.mode}; convert the file")
    return np.array(image)


def check_shape(name: str, array: Array, channels: int, batch: bool) -> None:
    plain = array.ndim - batch == 2 and channels == 1
    coloured = array.ndim - batch == 3 and array.shape[-1] == channels == 3
    if not (plain or coloured):
        shape = "(H, W, 3)" if channels == 3 else "(H, W)"
        raise InputError(f"{name}: expected {'a batch of ' if batch else ''}{shape}, found shape {array.shape}")


def check_range(name: str, array: Array, low: float, high: float) -> None:
    # NaN fails both comparisons; the slack is half precision's error of a unit vector.
    if array.size and not (array.min() >= low - 1e-3 and array.max() <= high + 1e-3):
        raise InputError(
            f"{name}: values {array.min():.4g} … {array.max():.4g} leave {low:g} … {high:g}; "
            "are they codes in another unit, or NaN?"
        )


def float64(values: Any) -> NDArray[np.float64]:
    """Numbers, or a tensor on any device."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


class SummedValues:
    """Per pixel, the sum of valid values and their number."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self.total: NDArray[np.float64] = np.zeros(())
        self.number: NDArray[np.float64] = np.zeros(())

    def __call__(self, label: Array) -> None:
        values = label.astype(np.float64) / (255 if label.dtype == np.uint8 else 1)
        valid = np.isfinite(values) & self._known(values)
        self.total = self.total + np.where(valid, values, 0)
        self.number = self.number + valid

    def _known(self, values: NDArray[np.float64]) -> Any:
        return True

    def result(self) -> Array | None:
        if not self.number.any():
            return None
        everywhere = self.total.sum() / self.number.sum()
        return np.where(self.number > 0, self.total / np.maximum(self.number, 1), everywhere)
