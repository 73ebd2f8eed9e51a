"""Metric depth."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.evaluation.histogram import HalfHistogram
from dmp_core.images import MOST_PIXELS
from dmp_core.modalities.base import (
    Array,
    CardText,
    Classes,
    Code,
    ErrorScale,
    MeanMap,
    Metric,
    Published,
    SummedValues,
    check_range,
    float64,
)
from dmp_core.modalities.files import npy_bytes
from dmp_core.modalities.scalar import ScalarMap


@dataclass(frozen=True, kw_only=True, eq=False)
class Depth(ScalarMap):
    """Metres along the optical axis, (H, W) float; values not positive or not finite mean no surface.

    Stored as float16: relative error at most 2⁻¹¹.
    """

    # ---------------------------------------------------------------------------------- files
    def imported(self, data: bytes, suffix: str) -> Array:
        """Also 16-bit PNG of millimetres, and NaN as "no surface"."""
        return _millimetres(data) if suffix == ".png" else self.decode(_without_nan(data))

    def png16(self, label: Array) -> bytes:
        """In millimetres, up to 65.535 m; 0: no surface."""
        return self._png16(label, 0.0, 0.001)

    def _check_values(self, array: Array) -> None:
        check_range(self.name, array, -math.inf, math.inf)

    # ------------------------------------------------------------------------------- geometry
    def valid(self, label: Array) -> NDArray[np.bool_]:
        return np.isfinite(label) & (label > 0)

    # -------------------------------------------------------------------------------- the VAE
    def _unit_range(self, label: Array, code: Code) -> Array:
        # No surface: the largest depth of the code.
        far = np.where(self.valid(label), label, code.depth_scale)
        share = np.clip(far.astype(np.float32) / np.float32(code.depth_scale), 0, 1 if code.depth_clip else None)
        return _CURVES[code.depth_curve][0](share)

    def _from_values(self, values: Array, code: Code, classes: Classes, noise: float | None) -> Array:
        grey = np.clip(((values + 1) / 2).mean(-1), 0, 1 if code.depth_clip else None)
        return (_CURVES[code.depth_curve][1](grey) * code.depth_scale).astype(np.float32)

    def encoding(self, code: Code) -> dict[str, Any]:
        stated: dict[str, Any] = {"mode": "F", "scale": code.depth_scale, "units": "metres"}
        if code.depth_curve != "linear":
            stated["curve"] = code.depth_curve
        return stated if code.depth_clip else stated | {"clip": False}

    def code_of(self, encoding: Mapping[str, Any]) -> dict[str, Any]:
        if encoding.get("mode") != "F" or "scale" not in encoding:
            return {}
        curve, clip = encoding.get("curve", "linear"), encoding.get("clip", True)
        return {"depth_scale": encoding["scale"], "depth_curve": curve, "depth_clip": clip}

    # ----------------------------------------------------------------------------- evaluation
    def tensor(self, array: Array) -> Any:
        """(N, H, W)."""
        return super().tensor(array)[:, 0]

    def scores(self, pred: Array, true: Array) -> dict[str, NDArray[np.float64]]:
        from dmp_core.evaluation import metrics
        from dmp_core.evaluation.alignment import align_affine

        p, t = self.tensor(pred), self.tensor(true)
        aligned = align_affine(p, t)
        return {
            "abs_rel": float64(metrics.abs_rel(p, t)),
            "delta1": float64(metrics.delta1(p, t)),
            "rmse_relative": float64(metrics.rmse_relative(p, t)),
            "abs_rel_aligned": float64(metrics.abs_rel(aligned, t)),
            "delta1_aligned": float64(metrics.delta1(aligned, t)),
        }

    def constant(self, labels: Iterable[Array]) -> NDArray[np.float64]:
        """The median of the valid metres."""
        histogram = HalfHistogram()
        for label in labels:
            histogram.update(label)
        return np.array(histogram.quantile(0.5))

    def mean_map(self) -> MeanMap:
        return _SummedDepths(self)

    # -------------------------------------------------------------------------------- quality
    def quality(self, label: Array) -> dict[str, Any]:
        labelled = self.valid(label)
        near, far = (float(label[labelled].min()), float(label[labelled].max())) if labelled.any() else (None, None)
        return {"labelled": float(labelled.mean()), "near": near, "far": far}

    def flip_difference(self, label: Array, mirrored: Array) -> float:
        """Mean of |d' - d| / d."""
        from dmp_core.evaluation import metrics

        return float(metrics.abs_rel(self.tensor(self.mirror(mirrored)[None]), self.tensor(label[None])))

    # ------------------------------------------------------------------------------- renderings
    def colourise(self, label: Array, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        """Near blue to far red, over `span` metres (default: the label's own range)."""
        return super().colourise(label, span=span or self.span([label]))

    def span(self, labels: Sequence[Array]) -> tuple[float, float]:
        """1st to 99th percentile of the valid metres of several maps.

        The far end is at most four medians, so that a patch of sky does not compress the rest of the range.
        """
        valid = [d[self.valid(d)].astype(np.float64) for d in map(np.asarray, labels)]
        values = np.concatenate(valid) if valid else np.empty(0)
        if values.size == 0:
            return 0.0, 1.0
        near, middle, far = np.quantile(values, [0.01, 0.5, 0.99])
        return float(near), float(max(min(far, 4 * middle), near + 1e-3))

    def value_text(self, value: float) -> str:
        return f"{value:.1f} m"

    def error_map(self, pred: Array, true: Array) -> NDArray[np.float64]:
        """Relative error in percent."""
        p, t = (self.image_channels_last(array).astype(np.float64) for array in (pred, true))
        valid = self.valid(t)
        with np.errstate(invalid="ignore"):
            return np.where(valid, 100 * np.abs(p - t) / np.where(valid, t, 1.0), np.nan)


# The logarithm starts at this share of the scale; below, levels would be wasted where no camera focuses.
_NEAREST = np.float32(1 / 40)
_CURVES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda share: share, lambda grey: grey),
    "sqrt": (np.sqrt, np.square),
    "log": (
        lambda share: 1 - np.log(np.maximum(share, _NEAREST)) / np.log(_NEAREST),
        lambda grey: np.exp(np.log(_NEAREST) * (1 - grey)),
    ),
}
"""Curve → (share of the scale to grey level, and back)."""


class _SummedDepths(SummedValues):
    def _known(self, values: NDArray[np.float64]) -> Any:
        return values > 0


def _without_nan(data: bytes) -> bytes:
    """A .npy file, after its header was checked: NumPy trusts the shape in it, however large."""
    _check_header(data)
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    return npy_bytes(np.nan_to_num(loaded, nan=0, posinf=np.inf, neginf=0)) if np.isnan(loaded).any() else data


def _check_header(data: bytes) -> None:
    if data.startswith(b"PK"):
        raise InputError("depth: an .npz archive called .npy; write one array with numpy.save")
    stream = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise InputError(f"depth: a .npy file of version {version}; write float16 metres with numpy.save")
    shape, _, dtype = readers[version](stream)
    if not np.issubdtype(dtype, np.floating):
        raise InputError(f"depth: expected metres as floats in the .npy file, found {dtype}"[:200])
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"depth: expected (H, W), found shape {shape}"[:200])
    if math.prod(shape) > MOST_PIXELS:
        raise InputError(f"depth: more than {MOST_PIXELS / 1e6:.0f} million pixels; scale it down")
    if math.prod(shape) * dtype.itemsize > len(data) - stream.tell():
        raise InputError(f"depth: the file ends before the {shape[0]} × {shape[1]} values that its header states")


def _millimetres(data: bytes) -> Array:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if not image.mode.startswith("I"):
            raise InputError(f"depth: expected a 16-bit grey PNG of millimetres, found mode {image.mode}; or use .npy")
        return (np.asarray(image).astype(np.float64) / 1000).astype(np.float32)


MODALITY = Depth(
    name="depth",
    title="Depth",
    short="Depth",
    member="depth.npy",
    low=-math.inf,
    high=math.inf,
    unit="metres",
    suffixes=(".npy", ".png"),
    metrics=(
        Metric("abs_rel", "REL", "Mean of |prediction - depth| / depth.", paper="Table 1"),
        Metric(
            "delta1",
            "δ",
            "Share of pixels where max(prediction / depth, depth / prediction) < 1.25.",
            higher_is_better=True,
            paper="Table 1",
        ),
        Metric(
            "rmse_relative",
            "RMSE rel.",
            "Root mean square error after scaling each map to [0, 1] on its own.",
            paper="Table 1",
        ),
        Metric("abs_rel_aligned", "REL aligned", "REL after a least-squares scale and shift per image."),
        Metric(
            "delta1_aligned", "δ aligned", "δ after a least-squares scale and shift per image.", higher_is_better=True
        ),
    ),
    error_scale=ErrorScale("relative depth error", 50.0, " %"),
    colour_map="turbo",
    gates=("min_labelled", "max_far"),
    flip_gate="max_flip_abs_rel",
    quality_scores={"labelled": float, "near": float, "far": float},
    card=CardText(
        stored="float16, shape (H, W)",
        meaning="Metres along the optical axis (z depth, not the length of the ray). "
        "Values that are not positive or not finite mean no surface.",
        snippet='depth = np.load(io.BytesIO(sample["depth.npy"]))  # (H, W) metres',
        category="depth-estimation",
    ),
    published=Published(("depth",), {"mode": "F", "scale": 8.0, "clip": False}),
    instruction="make it into the corresponding depth map",
)
