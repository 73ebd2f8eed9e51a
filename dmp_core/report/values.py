"""The numbers behind the report's maps, small enough to lie beside them: what the page shows under the pointer.

Every map is a PNG of codes, at most `LONGEST` points wide and high, taken from the map's own pixels and never averaged:
a colour or a vector has one code per channel, a scalar the red channel, a class id red + 256 green; alpha 0 means no
label. A value is low + (high - low) x code / 255, so it is rounded to a 255th of the map's own range.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.modalities import Modality
from dmp_core.modalities.classes import ClassMap
from dmp_core.modalities.colour import ColourMap, VectorMap
from dmp_core.report.data import Sample
from dmp_core.report.pictures import error_map

FOLDER = "values"
LONGEST = 64
AXES = (("red", "green", "blue"), ("right", "up", "toward the viewer"))
"""What the three channels of a colour, and of a vector, are."""


def values_script(sample: Sample, modalities: Iterable[Modality], scored: bool) -> str:
    """A script that hands the sample's maps to the page: a page that is a file may load scripts, but no other file."""
    maps = {m.name: dict(_maps(sample, m, scored)) for m in modalities}
    return f"reportValues({json.dumps(maps, allow_nan=False)});\n"


def quantities(modalities: Iterable[Modality]) -> dict[str, dict[str, Any]]:
    """Per modality what its numbers mean: title, unit, names of channels, names of classes, and those of its error."""
    return {
        m.name: {
            "title": m.short,
            "unit": getattr(m, "unit", ""),
            "axes": AXES[isinstance(m, VectorMap)] if isinstance(m, ColourMap) else (),
            "classes": list(m.classes) if isinstance(m, ClassMap) else None,
            "error": {"unit": m.error_scale.unit, "two": m.error_scale.two_valued},
        }
        for m in modalities
    }


def _maps(sample: Sample, modality: Modality, scored: bool) -> Iterable[tuple[str, Mapping[str, Any]]]:
    label, prediction = sample.labels.get(modality.name), sample.predictions.get(modality.name)
    for kind, array in (("label", label), ("prediction", prediction)):
        if array is not None:
            points = _points(modality.image_channels_last(array))
            if points.dtype == np.uint8 and not isinstance(modality, ClassMap):
                points = modality.from_codes(points)
            yield kind, _coded(points, modality.valid(points), ids=isinstance(modality, ClassMap))
    if scored and label is not None and prediction is not None:
        errors = _points(error_map(modality, prediction, label))
        yield "error", _coded(errors, np.isfinite(errors))


def _points(array: NDArray[Any]) -> NDArray[Any]:
    """At most LONGEST pixels per side, each the one in the middle of its cell."""
    height, width = array.shape[:2]
    factor = min(1.0, LONGEST / max(height, width))
    rows, columns = (
        ((np.arange(count) + 0.5) * side / count).astype(int)
        for side, count in ((side, max(1, round(side * factor))) for side in (height, width))
    )
    return array[np.ix_(rows, columns)]


def _coded(values: NDArray[Any], valid: NDArray[np.bool_], *, ids: bool = False) -> dict[str, Any]:
    codes = np.zeros((*valid.shape, 4), np.uint8)
    low, high = 0.0, 255.0
    if ids:
        known = np.where(valid, values, 0).astype(np.int64)
        codes[..., 0], codes[..., 1] = known % 256, known // 256
    elif valid.any():
        found = np.where(valid if values.ndim == 2 else valid[..., None], values, np.nan).astype(np.float64)
        low, high = float(np.nanmin(found)), float(np.nanmax(found))
        scaled = np.nan_to_num((found - low) / (high - low or 1.0))
        codes[..., : 1 if values.ndim == 2 else 3] = (255 * scaled).round().reshape(*valid.shape, -1)
    codes[..., 3] = np.where(valid, 255, 0)
    buffer = io.BytesIO()
    Image.fromarray(codes).save(buffer, "PNG", optimize=True)
    return {
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "low": float(f"{low:.6g}"),
        "high": float(f"{high:.6g}"),
    }
