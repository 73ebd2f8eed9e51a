"""The finished scene: placed objects in world space, a camera, a light mood."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dmp_core.render.kit import Thing
from dmp_core.render.materials import Material
from dmp_core.render.mesh import Mesh, rotation
from dmp_core.render.vocabulary import RGB, class_id

SKY_DEPTH = 80.0  # metres; the depth label of the sky


@dataclass(frozen=True)
class Mood:
    """Light of a scene. Radiances are relative: the exposure is set per image afterwards."""

    sky: RGB = (120.0, 178.0, 232.0)
    land: RGB = (92.0, 138.0, 76.0)
    window: float = 7.0
    lamps: float = 1.0
    ambient: float = 0.75
    sun: float = 0.0
    white_point: float = 0.9  # where the brightest twentieth of the shading begins


MOODS: dict[str, Mood] = {
    "day": Mood(window=8.0, ambient=0.8, sun=3.0),
    "morning": Mood(sky=(248.0, 206.0, 160.0), window=8.0, ambient=0.55, sun=3.5),
    "afternoon": Mood(sky=(150.0, 196.0, 232.0), window=7.0, ambient=0.6, sun=4.0),
    "warm": Mood(sky=(236.0, 176.0, 112.0), window=3.0, ambient=0.4, lamps=2.5),
    "candle": Mood(
        sky=(46.0, 50.0, 92.0), land=(20.0, 24.0, 32.0), window=0.3, ambient=0.12, lamps=3.0, white_point=0.75
    ),
    "sunset": Mood(
        sky=(244.0, 132.0, 74.0), land=(70.0, 52.0, 62.0), window=4.0, ambient=0.35, sun=3.5, white_point=0.85
    ),
    "dusk": Mood(sky=(96.0, 92.0, 156.0), land=(40.0, 44.0, 60.0), window=1.2, ambient=0.3, lamps=2.5, white_point=0.7),
    "night": Mood(
        sky=(24.0, 32.0, 74.0), land=(12.0, 16.0, 26.0), window=0.25, ambient=0.14, lamps=3.0, white_point=0.6
    ),
    "dim": Mood(sky=(120.0, 130.0, 140.0), window=1.5, ambient=0.25, lamps=2.0, white_point=0.6),
    "moon": Mood(
        sky=(40.0, 56.0, 112.0), land=(18.0, 24.0, 40.0), window=3.0, ambient=0.18, lamps=0.2, white_point=0.55
    ),
    "overcast": Mood(sky=(196.0, 204.0, 210.0), window=5.0, ambient=1.1),
    "cool": Mood(sky=(190.0, 208.0, 222.0), window=3.0, ambient=0.7, lamps=3.0),
    "neon": Mood(sky=(58.0, 20.0, 96.0), land=(20.0, 16.0, 44.0), window=0.6, ambient=0.25, lamps=3.0, white_point=0.7),
    "lamps": Mood(
        sky=(66.0, 76.0, 130.0), land=(28.0, 32.0, 44.0), window=0.6, ambient=0.25, lamps=3.0, white_point=0.8
    ),
}
_USUAL = ("day", "day", "day", "morning", "afternoon", "overcast", "warm", "cool", "lamps", "dusk", "sunset")


def draw_mood(light: str | None, rng: np.random.Generator) -> tuple[str, Mood]:
    """The prompt's light word, or one of the usual moods."""
    name = light if light in MOODS else _USUAL[int(rng.integers(len(_USUAL)))]
    return name, MOODS[name]


@dataclass
class Placed:
    """An object in world space. `instance` is 1-based and unique in the scene."""

    name: str
    class_id: int
    instance: int
    parts: list[tuple[Mesh, Material]]
    thing: Thing
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0
    _bounds: np.ndarray | None = None

    def bounds(self) -> np.ndarray:
        """(2, 3): lowest and highest corner. Kept: cameras are tried many times over."""
        if self._bounds is None:
            points = np.concatenate([m.vertices for m, _ in self.parts])
            self._bounds = np.stack([points.min(0), points.max(0)])
        return self._bounds

    def world(self, x: float, y: float, z: float) -> np.ndarray:
        """A point of the object's own frame in world space."""
        return np.array([x, y, z]) @ rotation("y", self.turn).T + np.array(self.position)


@dataclass(frozen=True)
class Camera:
    """A pinhole: origin, unit axes right/up/forward, full field of view in degrees (square image)."""

    origin: np.ndarray
    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray
    fov: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (N, 3) -> (N, 3): image x, y in -1..1 (right, up) and depth z in metres."""
        p = np.asarray(points) - self.origin
        z = p @ self.forward
        scale = 1.0 / (np.maximum(z, 1e-6) * np.tan(np.radians(self.fov) / 2))
        return np.stack([p @ self.right * scale, p @ self.up * scale, z], axis=-1)


def look(origin: np.ndarray, target: np.ndarray, fov: float) -> Camera:
    """A level camera at `origin` towards `target` (y is up)."""
    forward = np.asarray(target, dtype=float) - np.asarray(origin, dtype=float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return Camera(np.asarray(origin, dtype=float), right, np.cross(right, forward), forward, float(fov))


@dataclass
class Scene:
    """Everything that a renderer needs, and nothing of Mitsuba."""

    objects: list[Placed] = field(default_factory=list)
    backdrop: list[tuple[Mesh, Material]] = field(default_factory=list)  # seen, but neither lit nor labelled: sky
    hidden: list[tuple[Mesh, Material]] = field(default_factory=list)  # lights behind the camera
    camera: Camera | None = None
    mood: Mood = field(default_factory=Mood)
    mood_name: str = "day"
    sun_direction: tuple[float, float, float] | None = None
    outdoor: bool = False
    main: Placed | None = None

    @property
    def view(self) -> Camera:
        """The camera, once it has been chosen."""
        if self.camera is None:
            raise ValueError("the scene has no camera yet: set scene.camera before rendering it")
        return self.camera

    def add(self, thing: Thing, x: float, y: float, z: float, turn: float = 0.0) -> Placed:
        """Put a thing and all that it carries into the world; returns the thing itself."""
        matrix, offset = rotation("y", turn), np.array([x, y, z])
        parts = [
            (m._replace(vertices=m.vertices @ matrix.T + offset, normals=m.normals @ matrix.T), material)
            for m, material in thing.parts
        ]
        placed = Placed(thing.name, class_id(thing.name), len(self.objects) + 1, parts, thing, (x, y, z), turn)
        self.objects.append(placed)
        for child, cx, cy, cz, child_turn in thing.children:
            px, py, pz = np.array([cx, cy, cz]) @ matrix.T + offset
            self.add(child, px, py, pz, turn + child_turn)
        return placed
