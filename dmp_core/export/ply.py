"""Point clouds: one binary PLY per sample, from depth and the camera's field of view, with colours and normals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.errors import InputError
from dmp_core.export.dataset import Dataset, Sample, write_file
from dmp_core.modalities.colour import VectorMap
from dmp_core.modalities.depth import Depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmp_core.export.registry import Options


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """SPLIT/KEY.ply in metres, camera at the origin; axes right, up, toward the viewer, as the normals'."""
    modality = dataset.of_kind(options.modality, lambda one: isinstance(one, Depth), "depth maps")
    normals = [one for one in dataset.modalities if isinstance(one, VectorMap)]
    count = 0
    for split in dataset.splits:
        for sample in dataset.samples(split):
            fov = options.fov if options.fov is not None else _field_of_view(sample)
            depth = modality.decode(sample.labels[modality.name]).astype(np.float64)
            columns = {"xyz": points(depth, fov)}
            if len(normals) == 1:
                columns["nxyz"] = normals[0].decode(sample.labels[normals[0].name])
            data = _ply(columns, sample.rgb, modality.valid(depth))
            write_file(folder, f"{split}/{sample.key}.ply", data)
            count += 1
    return count


def points(depth: NDArray[np.float64], fov: float) -> NDArray[np.float64]:
    """Points (H, W, 3) of depths along the optical axis; fov: horizontal, degrees; pixels are square."""
    height, width = depth.shape
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    across = (np.arange(width) + 0.5 - width / 2) / focal
    down = (np.arange(height) + 0.5 - height / 2) / focal
    return np.stack([across[None, :] * depth, -down[:, None] * depth, -depth], axis=-1)


def _field_of_view(sample: Sample) -> float:
    scene: dict[str, Any] = json.loads(sample.record.get("scene") or "{}")
    found = scene.get("camera", {}).get("fov_degrees")
    if found is None:
        raise InputError(f"{sample.key}: its record states no field of view; give --fov DEGREES")
    return float(found)


def _ply(columns: dict[str, NDArray[Any]], rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bytes:
    """The valid pixels as vertices."""
    names = ["x", "y", "z"] + (["nx", "ny", "nz"] if "nxyz" in columns else [])
    colours = ["red", "green", "blue"]
    vertices = np.empty(int(valid.sum()), [(name, "<f4") for name in names] + [(name, "u1") for name in colours])
    values = np.concatenate(list(columns.values()), axis=-1)[valid]
    for position, name in enumerate(names):
        vertices[name] = values[:, position]
    for position, name in enumerate(colours):
        vertices[name] = rgb[valid][:, position]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {name}" for name in names] + [f"property uchar {name}" for name in colours]
    return "\n".join([*lines, "end_header", ""]).encode() + vertices.tobytes()
