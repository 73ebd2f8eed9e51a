"""Box rooms by ray casting: small, instant, and with all five labels known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.modalities import BUILT_IN
from dmp_core.report import Sample
from dmp_core.scoring.protocol import ScoreTable, aggregate, constant_prediction, score
from tests.constant_rows import score_constant

WALL, FLOOR, CEILING, BED, WINDOW, PAINTING = 0, 3, 5, 7, 8, 22
SIZE = 32


def room(seed: int, size: int = SIZE) -> dict[str, NDArray[Any]]:
    """One room seen from inside: rgb, normal, depth, segmentation, albedo, shading."""
    rng = np.random.default_rng(seed)
    half_width, height, length = rng.uniform(1.6, 3), rng.uniform(1.2, 1.8), rng.uniform(3, 7)
    u = (np.arange(size) + 0.5) / size * 2 - 1
    rays = np.stack(np.broadcast_arrays(u[None, :], -u[:, None], -np.ones((size, size))), axis=-1)
    bounds = np.where(rays > 0, [half_width, height, 1.0], [-half_width, -height, -length])
    distances = bounds / np.where(np.abs(rays) < 1e-6, 1e-6, rays)
    axis = distances.argmin(axis=-1)
    depth = distances.min(axis=-1)
    normal = np.zeros((size, size, 3))
    np.put_along_axis(normal, axis[..., None], -np.sign(np.take_along_axis(rays, axis[..., None], -1)), -1)
    points = rays * depth[..., None]
    ids = np.select([(axis == 1) & (rays[..., 1] < 0), axis == 1], [FLOOR, CEILING], WALL)
    left, top = rng.uniform(-half_width, half_width * 0.2), rng.uniform(0.2, height * 0.7)
    back = axis == 2
    ids[back & (abs(points[..., 0] - left) < 0.7) & (abs(points[..., 1] - top) < 0.5)] = rng.choice([WINDOW, PAINTING])
    ids[(ids == FLOOR) & (abs(points[..., 0]) < half_width * 0.6) & (points[..., 2] < -length * 0.5)] = BED
    colours = rng.uniform(0.25, 0.9, (150, 3))
    albedo = colours[ids]
    light = np.array([rng.uniform(-0.5, 0.5), 0.8, 0.6])
    shading = np.clip(0.35 + 0.5 * np.clip(normal @ light, 0, 1) - 0.03 * depth, 0.05, 1)
    rgb = np.round(255 * np.clip(albedo * shading[..., None], 0, 1)).astype(np.uint8)
    return {"rgb": rgb, "normal": normal, "depth": depth, "segmentation": ids, "albedo": albedo, "shading": shading}


def blurred(array: NDArray[Any], passes: int = 2) -> NDArray[Any]:
    """Five-point average over the image axes, repeated."""
    for _ in range(passes):
        edge = np.pad(array, [(1, 1), (1, 1)] + [(0, 0)] * (array.ndim - 2), mode="edge")
        array = (edge[1:-1, 1:-1] + edge[:-2, 1:-1] + edge[2:, 1:-1] + edge[1:-1, :-2] + edge[1:-1, 2:]) / 5
    return array


def prediction(name: str, label: NDArray[Any], seed: int, noise: float = 0.1) -> NDArray[Any]:
    """A plausible imperfect prediction: blurred and noisy, or with some wrong pixels for classes."""
    rng = np.random.default_rng(seed)
    if name == "segmentation":
        shifted = np.roll(label, 1, axis=1)
        near = np.where(rng.random(label.shape) < 0.5, label, shifted)
        return np.where(rng.random(label.shape) < noise / 2, 24, near)
    result = blurred(label + blurred(rng.normal(0, 3 * noise, label.shape), 3) * (label if name == "depth" else 1))
    if name == "normal":
        return result / np.linalg.norm(result, axis=-1, keepdims=True)
    return np.clip(result, 0.05, None) if name == "depth" else np.clip(result, 0, 1)


def samples(split: str, count: int, *, noise: float = 0.1, size: int = SIZE) -> list[Sample]:
    made = []
    for index in range(count):
        seed = sum(map(ord, split)) * 1000 + index
        arrays = room(seed, size)
        made.append(
            Sample(
                key=f"{split}-{index:08d}",
                prompt=f"A cosy <bedroom> no. {index} with a wooden bed & soft light",
                rgb=arrays["rgb"],
                labels={name: arrays[name] for name in BUILT_IN},
                predictions={name: prediction(name, arrays[name], seed, noise) for name in BUILT_IN},
                keyword="bedroom",
            )
        )
    return made


def tables(split: str, shown: list[Sample]) -> list[ScoreTable]:
    """DMP, ceiling and constant rows for all modalities of a split."""
    keys = [sample.key for sample in shown]
    rows = []
    for name in BUILT_IN:
        true = np.stack([sample.labels[name] for sample in shown])
        pred = np.stack([sample.predictions[name] for sample in shown])
        near = np.stack([prediction(name, label, 7, 0.01) for label in true])
        constant = constant_prediction(name, [room(seed)[name] for seed in range(8)])
        rows.append(score(name, pred, true, keys, split=split))
        rows.append(score(name, near, true, keys, split=split, row="VAE ceiling"))
        rows.append(score_constant(name, constant, true, keys, split=split))
    return rows


def metrics_of(rows: list[ScoreTable]) -> dict[str, Any]:
    return aggregate(rows, samples=100)
