"""Pieces that many makers share."""

from __future__ import annotations

from dmp_core.render.kit import Thing
from dmp_core.render.materials import Material
from dmp_core.render.mesh import box


def legs(
    thing: Thing, w: float, d: float, h: float, material: Material, r: float = 0.025, z: float | None = None
) -> None:
    z = d / 2 if z is None else z
    for sx in (-1, 1):
        for sz in (-1, 1):
            thing.add(box(2 * r, h, 2 * r), material, sx * (w / 2 - r), 0, z + sz * (d / 2 - r))


def drawers(
    thing: Thing, w: float, h: float, d: float, rows: int, columns: int, face: Material, knob: Material, y: float = 0.0
) -> None:
    """Raised fronts with knobs on the +z side of a box whose back is at z = 0."""
    cw, ch = w / columns, h / rows
    for r in range(rows):
        for c in range(columns):
            x, yy = -w / 2 + (c + 0.5) * cw, y + r * ch
            thing.add(box(cw * 0.9, ch * 0.88, 0.02), face, x, yy + ch * 0.06, d + 0.01)
            thing.add(box(0.05, 0.02, 0.02), knob, x, yy + ch * 0.5, d + 0.03)
