"""Depth as a coloured surface, and as the bytes of a binary glTF file (.glb), which browsers draw."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.export.ply import points

LONGEST = 256
"""Most vertices along a side; of larger maps every second, third … pixel is taken."""
TEAR = 0.1
"""The surface is torn where depth grows by more than this share between neighbours: behind an object."""
_FLOAT, _SHORT, _INT = 5126, 5123, 5125  # component types of glTF 2.0, section 3.6.2.2
_ARRAY, _ELEMENTS = 34962, 34963


@dataclass(frozen=True)
class Surface:
    """vertices: metres, axes right, up, toward the viewer, camera at the origin; triangles face the camera."""

    vertices: NDArray[np.float32]
    """(N, 3)"""
    colours: NDArray[np.uint8]
    """(N, 3)"""
    triangles: NDArray[np.uint32]
    """(M, 3)"""


def surface(depth: NDArray[Any], rgb: NDArray[np.uint8], fov: float, tear: float = TEAR) -> Surface:
    """Depth (H, W) in metres along the optical axis, with the image's colours; fov: horizontal, degrees.

    Pixels without a positive finite depth have no vertex.
    """
    step = -(-max(depth.shape) // LONGEST)
    # Each pixel's place, and not that of a smaller map: the field of view is the image's.
    xyz = points(np.asarray(depth, np.float64), fov)[::step, ::step]
    values, colours = np.asarray(depth, np.float64)[::step, ::step], rgb[::step, ::step]
    valid = np.isfinite(values) & (values > 0)
    number = np.cumsum(valid.ravel()).reshape(valid.shape) - 1
    corners = [np.s_[:-1, :-1], np.s_[1:, :-1], np.s_[:-1, 1:], np.s_[1:, 1:]]
    # Top left, bottom left, top right; top right, bottom left, bottom right: counterclockwise as the camera sees them.
    triangles = [
        np.stack([number[corners[at]] for at in three], -1)[
            _together(values, valid, [corners[at] for at in three], tear)
        ]
        for three in ((0, 1, 2), (2, 1, 3))
    ]
    return Surface(xyz[valid].astype(np.float32), colours[valid], np.concatenate(triangles).astype(np.uint32))


def _together(values: NDArray[Any], valid: NDArray[np.bool_], places: list[Any], tear: float) -> NDArray[np.bool_]:
    """Which triangles have three depths that are near each other."""
    depths = np.stack([np.where(valid, values, np.nan)[place] for place in places])
    with np.errstate(invalid="ignore"):
        near: NDArray[np.bool_] = depths.max(0) <= (1 + tear) * depths.min(0)  # False with NaN
    return near


def glb(made: Surface) -> bytes:
    """The surface as binary glTF 2.0 with one unlit material, so that the image's colours are seen as they are.

    It must have a triangle: glTF knows no empty lists.
    """
    # glTF's vertex colours are linear; 16 bits, since 8 would show steps in dark places.
    linear = np.append(_linear(made.colours), np.ones((len(made.colours), 1)), axis=1)
    columns = [
        (made.vertices.astype("<f4"), _FLOAT, "VEC3", _ARRAY),
        (np.round(linear * 65535).astype("<u2"), _SHORT, "VEC4", _ARRAY),
        (made.triangles.astype("<u4").reshape(-1), _INT, "SCALAR", _ELEMENTS),
    ]
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    data = b""
    for number, (values, kind, shape, target) in enumerate(columns):
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": values.nbytes, "target": target})
        accessors.append({"bufferView": number, "componentType": kind, "count": len(values), "type": shape})
        data += values.tobytes()  # all are multiples of 4 bytes
    accessors[0] |= {"min": made.vertices.min(0).tolist(), "max": made.vertices.max(0).tolist()}
    accessors[1] |= {"normalized": True}
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}
    content = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}],
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(content).encode()
    chunks = _chunk(b"JSON", text + b" " * (-len(text) % 4)) + _chunk(b"BIN\0", data)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data


def _linear(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sRGB codes as linear light in [0, 1] (IEC 61966-2-1)."""
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
