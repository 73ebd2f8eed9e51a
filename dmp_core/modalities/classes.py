"""Kind of modality: one class per pixel."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.evaluation.areas import area_score, class_areas, image_scores
from dmp_core.evaluation.bootstrap import Statistic
from dmp_core.evaluation.colours import IGNORED, Palette, class_colours, display_colours, id_type, load_palette
from dmp_core.images import GREY_STEPS, opened, raw_mode
from dmp_core.modalities.base import (
    Array,
    Classes,
    Code,
    ErrorScale,
    MeanMap,
    Metric,
    Modality,
    check_shape,
    read_png,
)
from dmp_core.modalities.files import png_bytes
from dmp_core.modalities.pictures import UNKNOWN_COLOUR
from dmp_core.text import markdown

_WRONG = ErrorScale("wrong class", 1.0, two_valued=True)
CLASS_SCORES = {"labelled": float, "classes": int, "class_share": float}
MOST_BYTE_CLASSES = 254


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMap(Modality):
    """Ids (H, W) of the classes, in their order; `ignored` means no label.

    Stored as a grey PNG, of 8 bits for up to 254 classes, of 16 bits for more.
    """

    channels: ClassVar[int] = 1
    has_classes: ClassVar[bool] = True

    classes: tuple[str, ...]
    """Names, by id."""
    ignored: int = IGNORED
    paper_classes: Mapping[str, int] = field(default_factory=dict)
    """Classes with their own metrics and a common mean: name → id."""
    headline: frozenset[int] | None = None
    """Classes that the primary metric averages; None: all."""
    weights: Mapping[int, float] = field(default_factory=dict)
    """Weights of a class's pixels in training on decoded images (`train.loss: decoded`); the others count 1."""
    error_scale: ErrorScale = _WRONG
    flip_gate: str = "min_flip_agreement"
    gates: tuple[str, ...] = ("min_labelled", "min_classes", "max_class_share")

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        return id_type(len(self.classes), self.ignored)

    def palette(self, code: Code) -> Palette:
        """Colour of each class in label images."""
        return load_palette(code.palette)

    # ---------------------------------------------------------------------------------- files
    def encode(self, array: Array) -> bytes:
        return png_bytes(self.checked(np.asarray(array)))

    def decode(self, data: bytes) -> Array:
        if self.dtype is np.uint8:
            return self.checked(read_png(data, self.name, "L"))
        with opened(io.BytesIO(data), ("PNG",)) as image:
            if image.mode not in ("I;16", "I", "L"):
                raise InputError(f"{self.name}: expected a grey image of 16 bits, found mode {image.mode}")
            return self.checked(np.array(image))

    def codes(self, label: Array) -> Array:
        return label.astype(self.dtype, copy=False)

    def from_codes(self, codes: Array) -> Array:
        return codes

    def imported(self, data: bytes, suffix: str) -> Array:
        """Also PNGs with a palette, which are read as indices, and with grey of 1, 2 or 4 bits."""
        with opened(io.BytesIO(data)) as image:  # checks its kind and size; the code below reads the bytes again
            stored, mode = raw_mode(image), image.mode
        label = _small_ids(data) if mode == "P" or stored in GREY_STEPS else self.decode(data)
        if ((label >= len(self.classes)) & (label != self.ignored)).any():
            raise InputError(
                f"class ids up to {label[label != self.ignored].max()}; {self.list_name} has 0 to "
                f"{len(self.classes) - 1}, {self.ignored}: none"
            )
        return label.astype(self.dtype)

    @property
    def stored_values(self) -> str:
        return f"class ids of {self.list_name}"

    @property
    def list_name(self) -> str:
        """Name of the list of classes."""
        return f"own_modalities.{self.name}.classes"

    # ------------------------------------------------------------------------------- geometry
    def checked(self, array: Array, batch: bool = False) -> Array:
        check_shape(self.name, array, 1, batch)
        if not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{self.name}: expected integer class ids, found {array.dtype}")
        limit = np.iinfo(self.dtype)
        if array.size and not (array.min() >= 0 and array.max() <= limit.max):
            raise InputError(
                f"{self.name}: ids {array.min()} … {array.max()} do not fit {limit.bits} bits; "
                f"{self.ignored} means no label"
            )
        return array.astype(self.dtype)

    def valid(self, label: Array) -> NDArray[np.bool_]:
        return np.asarray(label != self.ignored)

    def resize(self, label: Array, size: tuple[int, int]) -> Array:
        """Nearest."""
        label = self.checked(label)
        if label.shape[:2] == size:
            return label
        image = Image.fromarray(label if label.dtype == np.uint8 else label.astype(np.int32))
        return np.array(image.resize(size[::-1], Image.Resampling.NEAREST)).astype(label.dtype)

    # -------------------------------------------------------------------------------- the VAE
    def _unit_range(self, label: Array, code: Code) -> Array:
        return self.palette(code).encode(label).astype(np.float32) / 255

    def _from_values(self, values: Array, code: Code, classes: Classes, noise: float | None) -> Array:
        """Classes by their colours.

        classes: ids to choose among. Where two classes meet, an image has colours in between, which may be a third
            class's: fewer ids make that rarer.
        noise: chooses the likeliest class, not the nearest colour's (`Palette.likeliest`); `classes` then gives
            each id's share.
        """
        colours = ((values + 1) / 2 * 255).round().clip(0, 255).astype(np.uint8)
        if noise is None:
            return self._nearest(colours, code, classes)
        assert isinstance(classes, Mapping), "shares, for likelihoods"
        return self.palette(code).likeliest(colours, classes, noise)

    def _nearest(self, colours: Array, code: Code, classes: Classes) -> Array:
        """The class of the nearest colour."""
        return self.palette(code).decode(colours, classes)

    def classes_in(self, label: Array) -> list[int] | None:
        return np.setdiff1d(label, [self.ignored]).tolist() or None

    def encoding(self, code: Code) -> dict[str, Any]:
        return {"palette": code.palette, "classes": "ADE20K-150"}

    def code_of(self, encoding: Mapping[str, Any]) -> dict[str, Any]:
        return {"palette": encoding["palette"]} if encoding.get("palette") else {}

    # ----------------------------------------------------------------------------- evaluation
    @property
    def image_metric(self) -> Metric:
        return self.metric("image_mean_iou")

    def scores(self, pred: Array, true: Array) -> dict[str, NDArray[np.float64]]:
        return image_scores(self.areas(pred, true))

    def scores_and_areas(self, pred: Array, true: Array) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
        areas = self.areas(pred, true)
        return image_scores(areas), areas

    def areas(self, pred: Array, true: Array) -> NDArray[np.int64]:
        pred, true = self.channels_last(pred), self.channels_last(true)
        return class_areas(pred, true, len(self.classes), self.ignored, self.name)

    def area_statistic(self, areas: NDArray[np.int64], name: str) -> Statistic:
        return area_score(areas, name, self.paper_classes, self.headline)

    def tensor(self, array: Array) -> Any:
        raise TypeError(f"{self.name}: class ids have no difference to measure")

    # -------------------------------------------------------------------------- blind predictors
    def constant(self, labels: Iterable[Array]) -> NDArray[np.float64]:
        """The most frequent class."""
        size = np.iinfo(self.dtype).max + 1
        counts: NDArray[np.int64] = np.zeros(size, dtype=np.int64)
        for label in labels:
            counts += np.bincount(label[label != self.ignored].astype(np.int64), minlength=size)
        return np.array(float(np.argmax(counts)) if counts.any() else np.nan)

    def constant_like(self, value: NDArray[np.float64], true: Array) -> Array:
        return np.broadcast_to(np.asarray(value, dtype=np.int64), np.asarray(true).shape)

    def mean_map(self) -> MeanMap:
        return _CountedClasses(self)

    # -------------------------------------------------------------------------------- quality
    def quality(self, label: Array) -> dict[str, Any]:
        labelled = label != self.ignored
        counts = np.unique(label[labelled], return_counts=True)[1]
        share = float(counts.max() / counts.sum()) if len(counts) else None
        return {"labelled": float(labelled.mean()), "classes": len(counts), "class_share": share}

    def flip_difference(self, label: Array, mirrored: Array) -> float:
        """Share of equal pixels."""
        labelled = label != self.ignored
        return float((label == self.mirror(mirrored))[labelled].mean()) if labelled.any() else float("nan")

    # ------------------------------------------------------------------------------- renderings
    @cached_property
    def display_palette(self) -> NDArray[np.uint8]:
        """Colours to show classes in: (classes, 3) uint8."""
        return display_colours(len(self.classes))

    def colourise(self, label: Array, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        ids, palette = self.image_channels_last(label), self.display_palette
        known = (ids >= 0) & (ids < len(palette)) & (ids != self.ignored)
        image = palette[np.where(known, ids, 0).astype(np.int64)].astype(np.uint8)
        image[~known] = UNKNOWN_COLOUR
        return image

    def error_map(self, pred: Array, true: Array) -> NDArray[np.float64]:
        """1 where the class is wrong."""
        p, t = self.image_channels_last(pred), self.image_channels_last(true)
        return np.where((t == self.ignored) | (t < 0), np.nan, (p != t).astype(np.float64))

    @property
    def flat(self) -> bool:
        return True

    def card_section(self) -> str:
        listed = ", ".join(f"{index} {markdown(name)}" for index, name in enumerate(self.classes))
        heading = "## Classes" if self.name == "segmentation" else f"## Classes of {self.name}"
        summary = f"The {len(self.classes)} ids of `{self.member}`"
        return f"{heading}\n\n<details><summary>{summary}</summary>\n\n{listed}\n\n</details>"


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnClassMap(ClassMap):
    """With its own colours instead of the configuration's `latents.palette`."""

    colours: tuple[tuple[int, int, int], ...] | None = None
    """Colour of each class; None: as far apart as possible."""

    @cached_property
    def _palette(self) -> Palette:
        colours = class_colours(len(self.classes)) if self.colours is None else np.array(self.colours, dtype=np.uint8)
        return Palette(self.name, colours, self.classes, self.ignored)

    def palette(self, code: Code) -> Palette:
        return self._palette

    def encoding(self, code: Code) -> dict[str, Any]:
        return {}


class _CountedClasses:
    """Per pixel, how often each class occurs: (classes seen so far, H, W), independent of the number of labels."""

    def __init__(self, modality: ClassMap) -> None:
        self.modality = modality
        self.ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self.counts: NDArray[np.int32] | None = None

    def __call__(self, label: Array) -> None:
        found = np.setdiff1d(label, [self.modality.ignored])
        new = np.setdiff1d(found, self.ids)
        if self.counts is None:
            self.counts = np.zeros((0, *label.shape), np.int32)
        if new.size:
            self.ids = np.concatenate([self.ids, new])
            self.counts = np.concatenate([self.counts, np.zeros((len(new), *label.shape), np.int32)])
        for row in np.flatnonzero(np.isin(self.ids, found)):
            self.counts[row] += label == self.ids[row]

    def result(self) -> Array | None:
        if self.counts is None or not self.counts.any():
            return None
        order = np.argsort(self.ids)
        ids, counts = self.ids[order], self.counts[order]
        commonest = ids[int(counts.sum(axis=(1, 2)).argmax())]
        return np.where(counts.any(axis=0), ids[counts.argmax(axis=0)], commonest).astype(self.modality.dtype)


def _small_ids(data: bytes) -> Array:
    """Class ids as they are stored: palette indices, or grey levels of few bits, which Pillow would stretch to 255."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        step = GREY_STEPS.get(raw_mode(image))
        return np.array(image) if step is None else np.array(image.convert("L")) // np.uint8(step)


# -------------------------------------------------------------------------------------- metrics
def class_metrics(
    means: str = "the classes that occur in the labels", own: Sequence[Metric] = ()
) -> tuple[Metric, ...]:
    """The metrics of a class map, the primary one first.

    means: the classes that the first two average.
    own: metrics of single classes and groups of classes.
    """

    def whole(name: str, label: str, description: str, *, brief: bool = True) -> Metric:
        return Metric(name, label, description, higher_is_better=True, level="dataset", brief=brief)

    def of_images(name: str, label: str, description: str) -> Metric:
        return Metric(name, label, description, higher_is_better=True, brief=False)

    all_seen = "As mIoU, but a class that is predicted though no label shows it counts as 0 (mmsegmentation's mean)."
    return (
        whole("mean_iou", "mIoU", f"Mean intersection over union of {means}."),
        whole("mean_acc", "mAcc", f"Mean share of a class's pixels that are found, over {means}."),
        whole("overall_acc", "Pixel acc", "Share of labelled pixels with the right class."),
        *(metric for metric in own if metric.brief),
        whole("mean_iou_union", "mIoU (all seen)", all_seen, brief=False),
        *(metric for metric in own if not metric.brief),
        of_images(
            "image_mean_iou",
            "mIoU per image",
            "IoU averaged over the classes in the image's label, then over images.",
        ),
        of_images(
            "image_overall_acc", "Pixel acc per image", "Share of right pixels in an image, averaged over images."
        ),
    )
