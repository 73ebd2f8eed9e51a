"""Small triangle meshes in numpy: the bricks that furniture is made of.

Convention: metres, x to the right, y up, z towards the viewer. Every brick
stands on y = 0, centred on x = z = 0, and its front faces +z. Vertices are not
shared between flat faces, so that stored vertex normals are exact.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Mesh(NamedTuple):
    """vertices (V, 3), unit normals (V, 3), uv (V, 2) in metres unless stated, faces (F, 3)."""

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray


def move(mesh: Mesh, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
    return mesh._replace(vertices=mesh.vertices + np.array([x, y, z]))


def rotate(mesh: Mesh, axis: str, degrees: float) -> Mesh:
    """Rotate about a coordinate axis through the origin, right-handed."""
    matrix = rotation(axis, degrees)
    return mesh._replace(vertices=mesh.vertices @ matrix.T, normals=mesh.normals @ matrix.T)


def rotation(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def scale(mesh: Mesh, x: float, y: float, z: float) -> Mesh:
    factors = np.array([x, y, z])
    normals = mesh.normals / factors
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return mesh._replace(vertices=mesh.vertices * factors, normals=normals)


def join(meshes: list[Mesh]) -> Mesh:
    offsets = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]),
    )


# The four corners of each box side, counter-clockwise from outside, with the
# side's normal and the two coordinates that serve as u and v.
_BOX_SIDES = (
    ((0, 0, 1), ((-1, 0, 1), (1, 0, 1), (1, 1, 1), (-1, 1, 1)), (0, 1)),
    ((0, 0, -1), ((1, 0, -1), (-1, 0, -1), (-1, 1, -1), (1, 1, -1)), (0, 1)),
    ((1, 0, 0), ((1, 0, 1), (1, 0, -1), (1, 1, -1), (1, 1, 1)), (2, 1)),
    ((-1, 0, 0), ((-1, 0, -1), (-1, 0, 1), (-1, 1, 1), (-1, 1, -1)), (2, 1)),
    ((0, 1, 0), ((-1, 1, 1), (1, 1, 1), (1, 1, -1), (-1, 1, -1)), (0, 2)),
    ((0, -1, 0), ((-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)), (0, 2)),
)


@lru_cache(maxsize=1)
def _unit_box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    corners = np.array([c for _, cs, _ in _BOX_SIDES for c in cs], dtype=float) * [0.5, 1, 0.5]
    normals = np.array([n for n, cs, _ in _BOX_SIDES for _ in cs], dtype=float)
    quads = np.arange(24).reshape(6, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return corners, normals, faces


def box(width: float, height: float, depth: float) -> Mesh:
    corners, normals, faces = _unit_box()
    vertices = corners * [width, height, depth]
    uv = np.empty((24, 2))
    for side, (_, _, (u, v)) in enumerate(_BOX_SIDES):
        uv[4 * side : 4 * side + 4] = vertices[4 * side : 4 * side + 4][:, [u, v]]
    return Mesh(vertices, normals, uv, faces)


def panel(width: float, height: float, unit_uv: bool = True) -> Mesh:
    """A rectangle facing +z; uv in 0..1 (for pictures) or metres (for textures)."""
    x = np.array([-0.5, 0.5, 0.5, -0.5]) * width
    y = np.array([0.0, 0.0, 1.0, 1.0]) * height
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    vertices = np.stack([x, y, np.zeros(4)], axis=1)
    if not unit_uv:
        uv = np.stack([x, y], axis=1)
    return Mesh(vertices, np.tile([0.0, 0.0, 1.0], (4, 1)), uv, np.array([[0, 1, 2], [0, 2, 3]]))


def slab(width: float, depth: float, up: bool = True) -> Mesh:
    """A horizontal rectangle, facing up (floor) or down (ceiling); uv in metres."""
    flat = move(panel(width, depth, unit_uv=False), y=-depth / 2)
    return rotate(flat, "x", -90 if up else 90)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Faces of a (rows+1, columns+1) vertex grid, row-major, seen counter-clockwise."""
    r, c = np.mgrid[:rows, :columns].reshape(2, -1)
    a = r * (columns + 1) + c
    b, d, e = a + 1, a + columns + 1, a + columns + 2
    return np.concatenate([np.stack([a, b, e], 1), np.stack([a, e, d], 1)])


def lathe(profile: tuple[tuple[float, float], ...], segments: int = 14) -> Mesh:
    """Revolve (radius, y) points, listed bottom to top, about the y axis. Smooth round, flat along."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    around = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    pieces = []
    for (r0, y0), (r1, y1) in pairwise(profile):
        normal = np.array([y1 - y0, r0 - r1])
        length = np.linalg.norm(normal)
        if length < 1e-9:
            continue
        normal = normal / length
        vertices = np.concatenate(
            [
                np.stack([r * around[:, 0], np.full(segments + 1, y), r * around[:, 1]], 1)
                for r, y in ((r0, y0), (r1, y1))
            ]
        )
        ring = np.stack([around[:, 0] * normal[0], np.full(segments + 1, normal[1]), around[:, 1] * normal[0]], 1)
        turn = angle * max(r0, r1)
        uv = np.concatenate([np.stack([turn, np.full(segments + 1, y)], 1) for y in (y0, y1)])
        pieces.append(Mesh(vertices, np.concatenate([ring, ring]), uv, _grid_faces(1, segments)))
    return join(pieces)


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 14) -> Mesh:
    """A closed cylinder, or a cone frustum when `top` gives another radius."""
    top = radius if top is None else top
    return lathe(((0.0, 0.0), (radius, 0.0), (top, height), (0.0, height)), segments)


def _signed_power(x: np.ndarray, exponent: float) -> np.ndarray:
    return np.sign(x) * np.abs(x) ** exponent


@lru_cache(maxsize=64)
def _superellipsoid(e1: float, e2: float, rows: int, columns: int) -> Mesh:
    lat = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)[:, None]
    lon = np.linspace(-np.pi, np.pi, columns + 1)[None, :]
    c_lat, s_lat, c_lon, s_lon = np.cos(lat), np.sin(lat), np.cos(lon), np.sin(lon)
    flat = np.ones_like(lon)
    vertices = np.stack(
        [
            _signed_power(c_lat, e1) * _signed_power(s_lon, e2),
            _signed_power(s_lat, e1) * flat,
            _signed_power(c_lat, e1) * _signed_power(c_lon, e2),
        ],
        -1,
    ).reshape(-1, 3)
    normals = np.stack(
        [
            _signed_power(c_lat, 2 - e1) * _signed_power(s_lon, 2 - e2),
            _signed_power(s_lat, 2 - e1) * flat,
            _signed_power(c_lat, 2 - e1) * _signed_power(c_lon, 2 - e2),
        ],
        -1,
    ).reshape(-1, 3)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return Mesh(vertices, normals, vertices[:, [0, 2]].copy(), _grid_faces(rows, columns))


def soft(width: float, height: float, depth: float, roundness: float = 0.35, pinch: float | None = None) -> Mesh:
    """A rounded box (roundness 0..1: 0 a box, 1 an ellipsoid) for mattresses, pillows, cushions.

    `pinch` is the roundness of the outline seen from above (default: as `roundness`).
    """
    unit = _superellipsoid(roundness, roundness if pinch is None else pinch, 8, 20)
    half = (width / 2, height / 2, depth / 2)
    mesh = scale(unit, *half)
    mesh = mesh._replace(uv=mesh.vertices[:, [0, 2]] + mesh.vertices[:, [1]] * [[0.3, 1.0]])
    return move(mesh, y=height / 2)


def sphere(radius: float) -> Mesh:
    unit = _superellipsoid(1.0, 1.0, 10, 16)
    mesh = scale(unit, radius, radius, radius)
    return move(mesh, y=radius)


def prism(width: float, height: float, depth: float) -> Mesh:
    """A gable roof: triangular cross-section in x-y, extruded along z."""
    w, d = width / 2, depth / 2
    slope = np.hypot(w, height)
    n = np.array([height, w]) / slope
    left = [(-w, 0, -d), (-w, 0, d), (0, height, d), (0, height, -d)]
    right = [(w, 0, d), (w, 0, -d), (0, height, -d), (0, height, d)]
    front = [(-w, 0, d), (w, 0, d), (0, height, d)]
    back = [(w, 0, -d), (-w, 0, -d), (0, height, -d)]
    below = [(-w, 0, -d), (w, 0, -d), (w, 0, d), (-w, 0, d)]
    sides = (
        (left, (-n[0], n[1], 0)),
        (right, (n[0], n[1], 0)),
        (front, (0, 0, 1)),
        (back, (0, 0, -1)),
        (below, (0, -1, 0)),
    )
    pieces = []
    for corners, normal in sides:
        v = np.array(corners, dtype=float)
        uv = v[:, [0, 1]] if abs(normal[2]) else v[:, [2, 0]]
        faces = np.array([[0, 1, 2], [0, 2, 3]][: len(v) - 2])
        pieces.append(Mesh(v, np.tile(np.array(normal, dtype=float), (len(v), 1)), uv, faces))
    return join(pieces)


def wavy(width: float, height: float, folds: int, amplitude: float) -> Mesh:
    """A hanging cloth facing +z: a sheet whose depth follows a sine (curtains, towels)."""
    columns = max(4, folds * 6)
    t = np.linspace(0, 1, columns + 1)
    x = (t - 0.5) * width
    phase = t * folds * 2 * np.pi
    z = amplitude * (1 + np.sin(phase))
    slope = amplitude * np.cos(phase) * folds * 2 * np.pi / width
    normal = np.stack([-slope, np.zeros_like(t), np.ones_like(t)], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    vertices = np.concatenate([np.stack([x, np.full_like(t, y), z], 1) for y in (0.0, height)])
    uv = np.concatenate([np.stack([x, np.full_like(t, y)], 1) for y in (0.0, height)])
    return Mesh(vertices, np.concatenate([normal, normal]), uv, _grid_faces(1, columns))


def hills(width: float, depth: float, height: float, rng: np.random.Generator, cells: int = 18, peaks: int = 4) -> Mesh:
    """A smooth height field on y = 0 facing up: mountains, dunes, rolling hills."""
    x, z = np.meshgrid(np.linspace(-0.5, 0.5, 2 * cells + 1), np.linspace(0.5, -0.5, cells + 1))
    y = np.zeros_like(x)
    for _ in range(peaks):
        cx, cz, r = rng.uniform(-0.45, 0.45), rng.uniform(-0.15, 0.2), rng.uniform(0.12, 0.28)
        distance = np.hypot(x - cx, (z - cz) * 0.9) / r
        y = np.maximum(y, np.clip(1 - distance, 0, None) ** 1.15 * rng.uniform(0.5, 1.0))
    y = y * height + rng.normal(0, 0.03, y.shape) * height * (y > 0.02)
    y *= np.clip((0.5 - np.abs(z)) * 8, 0, 1)
    gy_z, gy_x = np.gradient(y)
    nx, nz = -gy_x / (width / (2 * cells)), gy_z / (depth / cells)
    normals = np.stack([nx, np.ones_like(nx), nz], -1).reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    vertices = np.stack([x * width, y, z * depth], -1).reshape(-1, 3)
    return Mesh(vertices, normals, vertices[:, [0, 1]] * 1.0, _grid_faces(cells, 2 * cells))
