"""Where the camera stands: a few candidates, the one with the best view of what matters wins."""

from __future__ import annotations

import numpy as np

from dmp_core.render.room import Room
from dmp_core.render.scene import Camera, Placed, Scene, look

_CANDIDATES = 14
_SHELL = ("wall", "floor", "ceiling", "rug")


def _probes(objects: list[Placed]) -> tuple[np.ndarray, np.ndarray]:
    """Points to see: seven inside each object's bounds; and the bounds (N, 2, 3)."""
    bounds = np.stack([o.bounds() for o in objects])
    t = np.array(
        [
            [0.5, 0.5, 0.5],
            [0.1, 0.5, 0.5],
            [0.9, 0.5, 0.5],
            [0.5, 0.9, 0.5],
            [0.5, 0.2, 0.9],
            [0.2, 0.8, 0.8],
            [0.8, 0.8, 0.8],
        ]
    )
    points = bounds[:, :1] + t[None] * (bounds[:, 1:] - bounds[:, :1])
    return points, bounds


def _blocked(origin: np.ndarray, points: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(N, P) whether some other object's box lies between the origin and the point."""
    n, p, _ = points.shape
    ray = points.reshape(-1, 1, 3) - origin
    ray = np.where(np.abs(ray) < 1e-9, 1e-9, ray)
    t0, t1 = (bounds[None, :, 0] - origin) / ray, (bounds[None, :, 1] - origin) / ray
    enter, leave = np.minimum(t0, t1).max(-1), np.maximum(t0, t1).min(-1)
    hit = (enter < leave) & (enter > 0) & (enter < 0.97)
    own = np.repeat(np.eye(n, dtype=bool), p, axis=0)
    return (hit & ~own).any(-1).reshape(n, p)


def visibility(camera: Camera, objects: list[Placed]) -> np.ndarray:
    """(N,) the share of each object's probe points in the frame and not hidden."""
    points, bounds = _probes(objects)
    seen = camera.project(points.reshape(-1, 3)).reshape(*points.shape)
    inside = (np.abs(seen[..., :2]) < 0.95).all(-1) & (seen[..., 2] > 0.3)
    return (inside & ~_blocked(camera.origin, points, bounds)).mean(1)


def _candidate(room: Room, rng: np.random.Generator, main: np.ndarray | None) -> Camera:
    tall = room.height > 3.4
    x = rng.uniform(-0.34, 0.34) * room.width
    z = rng.uniform(0.0, min(1.7, 0.25 * room.depth + 0.4))
    y = rng.uniform(1.25, 1.85) if not tall else rng.uniform(1.5, 2.4)
    centre = np.array([0.0, 0.42 * min(room.height, 3.2), -0.75 * room.depth])
    target = centre if main is None else centre * 0.45 + (main + np.array([0, 0.35, 0])) * 0.55
    target = target + rng.normal(0, 0.22, 3) * [1.0, 0.5, 0.5]
    return look(np.array([x, y, z]), target, rng.uniform(52, 66) if room.width > 2.6 else rng.uniform(56, 70))


def _weights(room: Room, objects: list[Placed], main: Placed | None) -> np.ndarray:
    named = {i.name for i in room.spec.items if i.count != 0}
    weights = np.array([2.0 if o.name in named else 0.25 for o in objects])
    for k, o in enumerate(objects):
        if o is main:
            weights[k] += 4.0
        elif o.name in ("window", "pillow"):
            weights[k] += 0.3
    return weights


def choose_camera(scene: Scene, room: Room, rng: np.random.Generator) -> Camera:
    """The best of some random views: the main object and the named things in the frame and unhidden."""
    objects = [o for o in scene.objects if o.name not in _SHELL]
    main = scene.main
    centre = None if main is None else main.bounds().mean(0)
    if not objects:
        return _candidate(room, rng, centre)
    weights = _weights(room, objects, main)
    scored = []
    for _ in range(_CANDIDATES):
        camera = _candidate(room, rng, centre)
        score = float(weights @ visibility(camera, objects) / weights.sum()) - _crowding(camera, objects)
        score += rng.uniform(0, 0.05)  # near ties stay varied
        scored.append((score, camera))
    return max(scored, key=lambda pair: pair[0])[1]


def _crowding(camera: Camera, objects: list[Placed]) -> float:
    """A penalty for things right before the lens."""
    bounds = np.stack([o.bounds() for o in objects])
    nearest = np.clip(camera.origin, bounds[:, 0], bounds[:, 1])
    distance = np.linalg.norm(nearest - camera.origin, axis=1)
    ahead = ((bounds.mean(1) - camera.origin) @ camera.forward) > 0
    return float((np.clip(1.1 - distance, 0, None) * ahead).sum()) * 1.2
