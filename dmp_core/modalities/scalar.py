"""Kind of modality: one number per pixel (depth, shading, roughness, a matte, edges, a temperature)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.images import resized
from dmp_core.modalities.base import (
    Array,
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
from dmp_core.modalities.files import npy_bytes, png16_bytes, png_bytes, read_floats
from dmp_core.modalities.pictures import apply_map, grey_image

INTRINSIC_METRICS = (
    Metric("mse", "MSE", "Mean squared difference, values in [0, 1].", paper="Table 3", decimals=4),
    Metric("l1", "L1", "Mean absolute difference, values in [0, 1].", decimals=4),
    Metric("si_mse", "MSE scale-inv.", "MSE after the best single scale per image.", decimals=4),
)
"""Of albedo and shading."""
VALUE_GATES = ("min_label_std", "max_label_clipped")
VALUE_SCORES = {"label_mean": float, "label_std": float, "label_clipped": float}


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalarMap(Modality):
    """Values (H, W) from `low` to `high`.

    Stored as an 8-bit grey PNG of values in [0, 1], or, if `member` says so, as .npy of float16 in which values
    that are not finite mean no label. In memory float, or uint8 codes of a PNG.
    """

    channels: ClassVar[int] = 1

    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    flip_gate: str = "max_flip_mse"
    gates: tuple[str, ...] = VALUE_GATES
    colour_map: str | None = None
    """Colour map of matplotlib, for renderings over the range; None: grey."""

    @property
    def is_png(self) -> bool:
        return self.member.endswith(".png")

    # ---------------------------------------------------------------------------------- files
    def encode(self, array: Array) -> bytes:
        codes = self.codes(self.checked(np.asarray(array)))
        return png_bytes(codes) if self.is_png else npy_bytes(codes)

    def decode(self, data: bytes) -> Array:
        if self.is_png:
            return self.from_codes(read_png(data, self.name, "L"))
        return self.from_codes(self.checked(read_floats(data, self.name, self.stored_unit)))

    def codes(self, label: Array) -> Array:
        if not self.is_png:
            with np.errstate(over="ignore"):  # above 65504 becomes infinitely far
                return label.astype(np.float16)
        if label.dtype == np.uint8:
            return label
        return (label.astype(np.float32) * 255).round().clip(0, 255).astype(np.uint8)

    def from_codes(self, codes: Array) -> Array:
        values = codes.astype(np.float32)
        return values / 255 if self.is_png else values

    def truth(self, label: Array) -> Array:
        return super().truth(label) if self.is_png else np.ascontiguousarray(label, dtype=np.float32)

    @property
    def stored_values(self) -> str:
        return super().stored_values if self.is_png else f"{self.low:g} to {self.high:g} {self.unit}".rstrip()

    @property
    def stored_unit(self) -> str:
        """Unit of the numbers in a .npy file, for messages."""
        return self.unit or "values"

    def png16(self, label: Array) -> bytes:
        """One label as a grey PNG of 16 bits, which states unit, scale and offset; see `png16_bytes`."""
        step = (self.high - self.low) / 65534
        return self._png16(label, self.low - step, step)

    def _png16(self, label: Array, offset: float, scale: float) -> bytes:
        """Values outside the range of the codes 1 to 65535 become the nearest one's."""
        valid = self.valid(label)
        codes = (np.where(valid, label, offset).astype(np.float64) - offset) / scale
        codes = np.where(valid, codes.round().clip(1, 65535), 0)
        return png16_bytes(codes.astype(np.uint16), self.unit, scale, offset)

    # ------------------------------------------------------------------------------- geometry
    def checked(self, array: Array, batch: bool = False) -> Array:
        check_shape(self.name, array, 1, batch)
        if array.dtype == np.uint8 and self.is_png:
            return array
        if not np.issubdtype(array.dtype, np.floating):
            wanted = "floats or uint8 codes" if self.is_png else "floats"
            raise InputError(f"{self.name}: expected {wanted}, found {array.dtype}")
        self._check_values(array)
        return array

    def _check_values(self, array: Array) -> None:
        known = array if self.is_png else array[np.isfinite(array)]
        slack = 0.0 if self.is_png else (self.high - self.low) * 2**-10  # float16 rounds
        check_range(self.name, known, self.low - slack, self.high + slack)

    def valid(self, label: Array) -> NDArray[np.bool_]:
        return np.isfinite(label)

    def resize(self, label: Array, size: tuple[int, int]) -> Array:
        """Nearest for .npy, since a mean with a missing value has none; bilinear for PNG."""
        label = self.checked(label)
        if label.shape[:2] == size:
            return label
        return resized(label, size, Image.Resampling.BILINEAR if self.is_png else Image.Resampling.NEAREST)

    # -------------------------------------------------------------------------------- the VAE
    def _unit_range(self, label: Array, code: Code) -> Array:
        if label.dtype == np.uint8:
            return label.astype(np.float32) / 255
        values = label.astype(np.float32)
        if self.is_png:
            return values
        # No label: the middle of the range, whose largest distance to any value is smallest.
        return np.where(np.isfinite(values), self._in_range(values).clip(0, 1), 0.5).astype(np.float32)

    def _in_range(self, values: Any) -> Any:
        """Values as fractions of the range, 0 to 1."""
        return (values - self.low) / (self.high - self.low)

    def _from_values(self, values: Array, code: Code, classes: Classes, noise: float | None) -> Array:
        # Clipped after the mean: channels that overshoot and undershoot should cancel.
        grey = np.clip(((values + 1) / 2).mean(-1), 0, 1)
        return self._from_grey(grey, code).astype(np.float32)

    def _from_grey(self, grey: Array, code: Code) -> Array:
        return grey if self.is_png else grey * (self.high - self.low) + self.low

    def encoding(self, code: Code) -> dict[str, Any]:
        stated: dict[str, Any] = {"mode": "F"}
        if not self.is_png:
            stated |= {"scale": self.high - self.low, "offset": self.low, "units": self.unit}
        return stated

    # ----------------------------------------------------------------------------- evaluation
    def scores(self, pred: Array, true: Array) -> dict[str, NDArray[np.float64]]:
        from dmp_core.evaluation import metrics

        p, t = self.tensor(pred), self.tensor(true)
        if self.is_png:
            return {name: float64(getattr(metrics, name)(p, t)) for name in ("mse", "l1", "si_mse")}
        span = self.high - self.low
        p, t = (p - self.low) / span, (t - self.low) / span
        return {"rmse": float64(metrics.mse(p, t).sqrt()) * span, "l1": float64(metrics.l1(p, t)) * span}

    def constant(self, labels: Iterable[Array]) -> NDArray[np.float64]:
        """The mean of all labelled pixels."""
        total, pixels = 0.0, 0
        for label in labels:
            values = self.tensor(label[None])[0].numpy()
            known = np.isfinite(values).all(axis=0)
            total = total + np.where(known, values, 0).sum(axis=(1, 2))[0]
            pixels += int(known.sum())
        return np.asarray(total / pixels if pixels else math.nan)

    def mean_map(self) -> MeanMap:
        return SummedValues(self)

    # -------------------------------------------------------------------------------- quality
    def quality(self, label: Array) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        if self.is_png:
            known = np.asarray(label, dtype=np.float64)
        else:
            inside = np.isfinite(label)
            scores["labelled"] = float(inside.mean())
            known = self._in_range(np.asarray(label, dtype=np.float64)[inside])
        return scores | value_scores(known)

    def flip_difference(self, label: Array, mirrored: Array) -> float:
        from dmp_core.evaluation import metrics

        p, t = (self._in_range(self.tensor(array[None])) for array in (self.mirror(mirrored), label))
        return float(metrics.mse(p, t))

    # ------------------------------------------------------------------------------- renderings
    def colourise(self, label: Array, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        array = self.image_channels_last(label).astype(np.float64)
        if self.colour_map is None:
            return grey_image(array if self.is_png else self._in_range(array))
        low, high = span or (self.low, self.high)
        return apply_map(np.where(self.valid(array), (array - low) / (high - low), np.nan), self.colour_map)

    def span(self, labels: Sequence[Array]) -> tuple[float, float] | None:
        return None if self.colour_map is None else (self.low, self.high)

    def value_text(self, value: float) -> str:
        """A value's label on colour bars."""
        return f"{value:g} {self.unit}".rstrip()

    def error_map(self, pred: Array, true: Array) -> NDArray[np.float64]:
        p, t = (self.image_channels_last(array).astype(np.float64) for array in (pred, true))
        with np.errstate(invalid="ignore"):  # infinite where neither has a value
            return np.where(self.valid(t), np.abs(p - t), np.nan)


def value_scores(values: NDArray[np.float64]) -> dict[str, Any]:
    """Quality scores of values in [0, 1], (H, W[, 3]) or a list of them."""
    if not values.size:
        return dict.fromkeys(VALUE_SCORES)
    axes = (0, 1) if values.ndim > 1 else None
    return {
        "label_mean": float(values.mean()),
        "label_std": float(np.max(values.std(axis=axes))),
        "label_clipped": float(((values <= 0) | (values >= 1)).mean()),
    }
