"""What every maker of furniture works with: `Thing`, the finished object, and `Kit`, the colours to make it of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmp_core.render.decor import PERIODS, Palette, asked_material
from dmp_core.render.language import Item
from dmp_core.render.materials import Material, shade
from dmp_core.render.mesh import Mesh, move, rotate, scale
from dmp_core.render.vocabulary import RGB


@dataclass
class Thing:
    """One object in its own frame: origin at the middle of its back edge on the floor, front to +z.

    `size` is (width, height, depth) in metres; `spots` are places on top of it
    where smaller things go: (x, y, z) with the free (width, depth) there.
    """

    name: str
    size: tuple[float, float, float]
    parts: list[tuple[Mesh, Material]] = field(default_factory=list)
    children: list[tuple[Thing, float, float, float, float]] = field(default_factory=list)
    spots: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    primary: Material | None = None
    lamp: bool = False

    def add(self, mesh: Mesh, material: Material, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Thing:
        self.parts.append((move(mesh, x, y, z), material))
        return self

    def rescale(self, factor: float) -> Thing:
        """Larger or smaller in all directions."""
        self.parts = [(scale(m, factor, factor, factor), material) for m, material in self.parts]
        self.size = (self.size[0] * factor, self.size[1] * factor, self.size[2] * factor)
        return self

    def put(self, child: Thing, x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: float = 0.0) -> Thing:
        """A separate object that moves along with this one; its back edge goes to (x, y, z)."""
        self.children.append((child, x, y, z, turn))
        return self


@dataclass
class Kit:
    """Randomness, colours and the prompt's wish for the one object being made."""

    rng: np.random.Generator
    palette: Palette
    ask: Item | None = None
    index: int = 0  # which of several like objects this is: "red and blue cushions" alternate

    def colour(self, role: str) -> RGB:
        return getattr(self.palette, role)

    def of(
        self, role: str | RGB, texture: str = "plain", period: float | None = None, emission: float = 0.0
    ) -> Material:
        """A material of the room's scheme, or of a given colour."""
        rgb = self.colour(role) if isinstance(role, str) else role
        seed = int(self.rng.integers(1 << 30)) if texture != "plain" else 0
        return Material(rgb, texture, None, PERIODS.get(texture, 1.0) if period is None else period, emission, seed)

    def main(self, role: str | RGB, texture: str = "plain", period: float | None = None) -> Material:
        """The material that carries the prompt's colour for this object."""
        base = self.of(role, texture, period)
        if self.ask is None:
            return base
        colours = self.ask.colours
        return asked_material(colours[self.index % len(colours)] if colours else None, self.ask.material, base)

    def has_wish(self) -> bool:
        return self.ask is not None and bool(self.ask.colours or self.ask.material)

    def pick(self, *options: Any) -> Any:
        """One of the options, of whatever kinds."""
        return options[int(self.rng.integers(len(options)))]

    def near(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def trim(self, material: Material, factor: float = 0.75) -> Material:
        """A plain darker (or lighter) companion of a material, for edges and legs."""
        return Material(shade(material.colour, factor))


Maker = Callable[[Kit], Thing]


def turned(mesh: Mesh, degrees: float) -> Mesh:
    return rotate(mesh, "y", degrees)
