"""Kinds of modality with three channels: a colour per pixel (albedo), or a direction (normal)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.images import resized
from dmp_core.modalities.base import (
    Array,
    Axes,
    Classes,
    Code,
    MeanMap,
    Metric,
    Modality,
    SummedValues,
    check_range,
    check_shape,
    float64,
    read_png,
)
from dmp_core.modalities.files import png_bytes
from dmp_core.modalities.pictures import grey_image
from dmp_core.modalities.scalar import VALUE_GATES, value_scores

_SIGNS: dict[Axes, tuple[int, int, int]] = {
    "opengl": (1, 1, 1),
    "opencv": (1, -1, -1),
    "directx": (1, -1, 1),
    "unity": (1, 1, -1),
}
_WORDS = {
    "opengl": "right, up, toward",
    "opencv": "right, down, away",
    "directx": "right, down, toward",
    "unity": "right, up, away",
}
PUBLISHED_AXES: Axes = "opencv"
"""Axes of the normals that the paper's authors trained on and scored."""
PUBLISHED_AXES_WORDS = _WORDS[PUBLISHED_AXES]
NO_DIRECTION = 1e-6
"""Vectors shorter than this have no direction; as in `metrics.angular_deg`, which counts them as 90°."""
# An 8-bit code cannot hold a zero vector exactly: (128, 128, 128) decodes to length 0.007.
NO_SURFACE = 0.5
"""Vectors shorter than this are no label."""
# 8-bit codes change a unit vector's length by 0.007 at most; other lengths are not unit vectors.
UNIT_TOLERANCE = 0.05
# Half of an imported file's codes must be unit vectors or unlabelled: compression blurs edges, wrong encodings fail.
_UNIT_SLACK, _UNIT_SHARE = 0.15, 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class ColourMap(Modality):
    """Colours (H, W, 3) in [0, 1], or their uint8 codes; stored as an 8-bit RGB PNG."""

    channels: ClassVar[int] = 3
    low: ClassVar[float] = 0.0

    flip_gate: str = "max_flip_mse"
    gates: tuple[str, ...] = VALUE_GATES

    # ---------------------------------------------------------------------------------- files
    def encode(self, array: Array) -> bytes:
        return png_bytes(self.codes(self.checked(np.asarray(array))))

    def decode(self, data: bytes) -> Array:
        return self.from_codes(read_png(data, self.name, "RGB"))

    def codes(self, label: Array) -> Array:
        if label.dtype == np.uint8:
            return label
        return (self._to_unit(label.astype(np.float32)) * 255).round().clip(0, 255).astype(np.uint8)

    def from_codes(self, codes: Array) -> Array:
        return self._from_unit(codes.astype(np.float32) / 255)

    def _to_unit(self, values: Array) -> Array:
        """Values as fractions of a channel's range, 0 to 1."""
        return values

    def _from_unit(self, values: Array) -> Array:
        return values

    # ------------------------------------------------------------------------------- geometry
    def checked(self, array: Array, batch: bool = False) -> Array:
        check_shape(self.name, array, 3, batch)
        if array.dtype == np.uint8:
            return array
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{self.name}: expected floats or uint8 codes, found {array.dtype}")
        check_range(self.name, array, self.low, 1.0)
        return array

    def valid(self, label: Array) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(label).all(axis=-1))

    def resize(self, label: Array, size: tuple[int, int]) -> Array:
        """Bilinear."""
        label = self.checked(label)
        return label if label.shape[:2] == size else self._resized(resized(label, size, Image.Resampling.BILINEAR))

    def _resized(self, label: Array) -> Array:
        return label

    # -------------------------------------------------------------------------------- the VAE
    def _unit_range(self, label: Array, code: Code) -> Array:
        if label.dtype == np.uint8:
            return label.astype(np.float32) / 255
        return self._to_unit(label.astype(np.float32))

    def _from_values(self, values: Array, code: Code, classes: Classes, noise: float | None) -> Array:
        return np.clip((values + 1) / 2, 0, 1).astype(np.float32)

    # ----------------------------------------------------------------------------- evaluation
    def scores(self, pred: Array, true: Array) -> dict[str, NDArray[np.float64]]:
        from dmp_core.evaluation import metrics

        p, t = self.tensor(pred), self.tensor(true)
        return {name: float64(getattr(metrics, name)(p, t)) for name in ("mse", "l1", "si_mse")}

    def constant(self, labels: Iterable[Array]) -> NDArray[np.float64]:
        """The mean of all labelled pixels, (3,)."""
        total: NDArray[np.float64] = np.zeros(3)
        pixels = 0
        for label in labels:
            values = self.tensor(label[None])[0].numpy()
            known = np.isfinite(values).all(axis=0)
            total = total + np.where(known, values, 0).sum(axis=(1, 2))
            pixels += int(known.sum())
        return total / pixels if pixels else np.full_like(total, np.nan)

    def mean_map(self) -> MeanMap:
        return SummedValues(self)

    # -------------------------------------------------------------------------------- quality
    def quality(self, label: Array) -> dict[str, Any]:
        return value_scores(np.asarray(label, dtype=np.float64))

    def flip_difference(self, label: Array, mirrored: Array) -> float:
        from dmp_core.evaluation import metrics

        return float(metrics.mse(self.tensor(self.mirror(mirrored)[None]), self.tensor(label[None])))

    # ------------------------------------------------------------------------------- renderings
    def colourise(self, label: Array, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        return grey_image(self._to_unit(self.image_channels_last(label).astype(np.float64)))

    def error_map(self, pred: Array, true: Array) -> NDArray[np.float64]:
        """Mean of the channels' absolute differences."""
        p, t = (self.image_channels_last(array).astype(np.float64) for array in (pred, true))
        return np.asarray(np.abs(p - t).mean(axis=-1))


VECTOR_METRICS = (
    Metric("angular_deg", "Angle", "Mean angle between predicted and true normal.", unit="°", decimals=1),
    Metric("angular_median_deg", "Median angle", "Median over the pixels of an image.", unit="°", decimals=1),
    Metric("l1", "L1", "Mean absolute difference of the colour codes (n + 1) / 2.", paper="Table 1", decimals=4),
    Metric(
        "angular_dmp_compat",
        "Ang (paper)",
        "Angle between colour codes in [0, 1] of normals on the published axes (right, down, away), in radians, as the "
        "published code computes it: not an angle between normals (a true 30° reads about 15°).",
        unit=" rad",
        paper="Table 1",
        form="dmp_compat",
        decimals=4,
        version=2,  # 1: codes on our axes, which are brighter: the same errors read 12 to 22 % lower
    ),
)
VECTOR_GATES = ("min_labelled", "min_unit", "min_normal_z")
VECTOR_SCORES = {"labelled": float, "unit": float, "normal_z": float}


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorMap(ColourMap):
    """Unit vectors (H, W, 3), axes right / up / toward the viewer; (0, 0, 0) is no label.

    Stored as an 8-bit RGB PNG of (n + 1) / 2.
    """

    low: ClassVar[float] = -1.0

    flip_gate: str = "max_flip_degrees"
    gates: tuple[str, ...] = VECTOR_GATES

    # ---------------------------------------------------------------------------------- files
    def decode(self, data: bytes) -> Array:
        return unit(self.from_codes(read_png(data, self.name, "RGB")))

    def truth(self, label: Array) -> Array:
        """In half precision, 8 times finer than the 8-bit file."""
        return np.ascontiguousarray(label, dtype=np.float16)

    def stored(self, data: bytes) -> Array:
        """The vectors before they are normalised."""
        return read_png(data, self.name, "RGB").astype(np.float64) / 127.5 - 1

    def imported(self, data: bytes, suffix: str) -> Array:
        length = np.linalg.norm(self.stored(data), axis=-1)
        fine = (abs(length - 1) < _UNIT_SLACK) | (length < _UNIT_SLACK)
        if fine.mean() < _UNIT_SHARE:
            raise InputError(
                f"{self.name}: only {fine.mean():.0%} of the codes are unit vectors; write 8 bits of (n + 1) / 2, and "
                "(128, 128, 128) where there is no surface"
            )
        return self.decode(data)

    def unrepaired(self, label: Array, data: bytes) -> Array:
        return self.stored(data)

    def turned(self, label: Array, axes: Axes) -> Array:
        return label if axes == "opengl" else label * np.array(_SIGNS[axes], dtype=label.dtype)

    def check_stored(self, data: bytes) -> None:
        share = self.quality(self.stored(data))["unit"]
        if share is not None and share < 1 - UNIT_TOLERANCE:
            raise InputError(f"only {share:.0%} of its {self.name}s are unit vectors")

    def _to_unit(self, values: Array) -> Array:
        return (values + 1) / 2

    def _from_unit(self, values: Array) -> Array:
        return values * 2 - 1

    # ------------------------------------------------------------------------------- geometry
    def valid(self, label: Array) -> NDArray[np.bool_]:
        length = np.linalg.norm(np.asarray(label, dtype=np.float64), axis=-1)
        return np.asarray(np.isfinite(length) & (length >= NO_SURFACE))

    def mirror(self, label: Array) -> Array:
        """Mirrored, and x negated, since it points right."""
        mirrored = super().mirror(label)
        mirrored[..., 0] = 255 - mirrored[..., 0] if mirrored.dtype == np.uint8 else -mirrored[..., 0]
        return mirrored

    def mirror_image(self, images: Array) -> Array:
        return self.mirror(images)

    def _resized(self, label: Array) -> Array:
        return label if label.dtype == np.uint8 else unit(label)

    # -------------------------------------------------------------------------------- the VAE
    def _from_values(self, values: Array, code: Code, classes: Classes, noise: float | None) -> Array:
        """Unit vectors of any non-zero length; an exact zero becomes the direction to the viewer, the likeliest one."""
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        toward = np.array([0, 0, 1], dtype=np.float32)
        values = self.turned(values, code.axes)
        found = np.where(length > NO_DIRECTION, values / np.maximum(length, NO_DIRECTION), toward)
        return found.astype(np.float32)

    def encoding(self, code: Code) -> dict[str, Any]:
        return {"axes": "right, up, toward the viewer; (n + 1) / 2"}

    def code_of(self, encoding: Mapping[str, Any]) -> dict[str, Any]:
        """Raises InputError for axes that have no name."""
        stated = encoding.get("axes")
        if not stated:
            return {}
        for axes, words in _WORDS.items():
            if stated == axes or str(stated).startswith(words):
                return {"axes": axes}
        raise InputError(f"encoding.axes: {stated!r} is unknown; choose one of: {', '.join(_WORDS)}")

    # ----------------------------------------------------------------------------- evaluation
    def scores(self, pred: Array, true: Array) -> dict[str, NDArray[np.float64]]:
        import torch

        from dmp_core.evaluation import metrics

        p, t = self.tensor(pred), self.tensor(true)
        angles, labelled = metrics.angles_deg(p, t), metrics.has_normal(t)
        found = {
            "angular_deg": float64(metrics.masked_mean(angles, labelled)),
            "angular_median_deg": float64(angles.where(labelled, torch.nan).flatten(1).nanquantile(0.5, dim=1)),
            "l1": float64(metrics.l1_normals(p, t)),
            "angular_dmp_compat": float64(metrics.angular_dmp_compat(*map(self._published_codes, (pred, true)))),
        }
        return {metric.name: found[metric.name] for metric in self.metrics}

    def _published_codes(self, label: Array) -> Any:
        """Colour codes in [0, 1] of vectors that point right, down and away, as the paper's: (N, 3, H, W)."""
        return (self.tensor(self.turned(self.channels_last(label), PUBLISHED_AXES)) + 1) / 2

    def constant(self, labels: Iterable[Array]) -> NDArray[np.float64]:
        """The mean direction, (3,)."""
        mean = super().constant(labels)
        length = np.linalg.norm(mean)
        return np.asarray(mean / length if length > 0 else np.full(3, np.nan))

    def mean_map(self) -> MeanMap:
        return _SummedVectors(self)

    # -------------------------------------------------------------------------------- quality
    def quality(self, label: Array) -> dict[str, Any]:
        length = np.linalg.norm(np.asarray(label, dtype=np.float64), axis=-1)
        labelled = length >= NO_SURFACE
        scores: dict[str, Any] = {"labelled": float(labelled.mean()), "unit": None, "normal_z": None}
        if labelled.any():
            scores["unit"] = float((np.abs(length[labelled] - 1) <= UNIT_TOLERANCE).mean())
            scores["normal_z"] = float((label[..., 2][labelled] / length[labelled]).mean())
        return scores

    def flip_difference(self, label: Array, mirrored: Array) -> float:
        """Mean angle in degrees."""
        from dmp_core.evaluation import metrics

        return float(metrics.angular_deg(self.tensor(self.mirror(mirrored)[None]), self.tensor(label[None])))

    # ------------------------------------------------------------------------------- renderings
    @property
    def picture_key(self) -> str:
        return "red: to the right, green: up, blue: toward the viewer"

    def error_map(self, pred: Array, true: Array) -> NDArray[np.float64]:
        """Angle in degrees."""
        p, t = (self.image_channels_last(array).astype(np.float64) for array in (pred, true))
        lengths = np.linalg.norm(p, axis=-1) * np.linalg.norm(t, axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.sum(p * t, axis=-1) / lengths
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        return np.where(lengths > NO_DIRECTION, angle, np.nan)


class _SummedVectors(SummedValues):
    def result(self) -> Array | None:
        """Directions of mean vectors of any length above 0: labels that disagree still have a mean direction."""
        means = super().result()
        if means is None:
            return None
        length = np.linalg.norm(means, axis=-1, keepdims=True)
        return np.where(length > NO_DIRECTION, means / np.maximum(length, NO_DIRECTION), 0)


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) scaled to length 1; those shorter than 0.5 have no direction and become 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length < NO_SURFACE, 0, vectors / np.maximum(length, NO_SURFACE)).astype(np.float32)
