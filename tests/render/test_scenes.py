"""Scenes hold what was asked for, before any pixel: no renderer needed."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_core.keywords.meaning import families
from dmp_core.render import build_scene, read_prompt
from dmp_core.render.decor import draw_palette
from dmp_core.render.kit import Kit
from dmp_core.render.makers import MAKERS
from dmp_core.render.materials import TEXTURES, Material, bitmap
from dmp_core.render.mesh import Mesh, box, cylinder, lathe, panel, prism, soft, sphere
from dmp_core.render.scene import Scene, look
from dmp_core.render.vocabulary import vocabulary
from dmp_core.resources import ade20k_classes


def _scene(prompt: str, keyword: str, seed: int) -> Scene:
    return build_scene(read_prompt(prompt, keyword), seed)


def _count(scene: Scene, name: str) -> int:
    return sum(o.name == name for o in scene.objects)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pillow_counts(count: int) -> None:
    words = {1: "a pillow", 2: "two pillows", 3: "three pillows", 4: "four pillows"}[count]
    for seed in range(6):
        assert _count(_scene(f"a bed with {words}", "bedroom", seed), "pillow") == count


@pytest.mark.parametrize(
    ("prompt", "keyword", "name", "count"),
    [("two green armchairs", "living_room", "armchair", 2), ("three stools", "kitchen", "stool", 3),
     ("no window", "bedroom", "window", 0), ("two lamps", "bedroom", "lamp", 2),
     ("four chairs", "dining_room", "chair", 4),
     ("a blue refrigerator", "bedroom", "refrigerator", 1), ("a bathtub", "office", "bathtub", 1)],
)  # fmt: skip
def test_named_things_are_placed_in_any_room(prompt: str, keyword: str, name: str, count: int) -> None:
    for seed in range(5):
        assert _count(_scene(prompt, keyword, seed), name) == count


def test_families_reach_many_classes() -> None:
    v, classes = vocabulary(), set()
    for family in v.families.values():
        for seed in range(3):
            keyword = (*family.keywords, family.phrase)[0]
            classes |= {o.class_id for o in _scene(f"a {family.phrase}", keyword, seed).objects}
    assert len(classes) >= 40
    names = {ade20k_classes()[c] for c in classes}
    assert {"bed", "sofa", "stove", "toilet", "desk", "tree", "building", "windowpane", "stairs"} <= names


def test_families_differ_in_what_they_hold() -> None:
    for keyword, name in (("bedroom", "bed"), ("kitchen", "countertop"), ("bathroom", "sink"), ("office", "desk")):
        assert sum(_count(_scene(f"a {keyword}", keyword, seed), name) > 0 for seed in range(8)) >= 6


@pytest.mark.parametrize("family", families())
def test_extreme_wishes_build(family: str) -> None:
    """Tiny rooms and too many things: every family still gives a scene with a camera."""
    keyword = (*vocabulary().families[family].keywords, vocabulary().families[family].phrase)[0]
    prompt = f"a tiny {family.replace('_', ' ')} room with five huge beds, a bar, two pool tables, a tank and a boat"
    for seed in range(3):
        assert _scene(prompt, keyword, seed).camera is not None


def test_main_object_is_in_the_picture() -> None:
    seen = 0
    for seed in range(12):
        scene = _scene("a bedroom", "bedroom", seed)
        centre = scene.main.bounds().mean(0, keepdims=True)
        x, y, z = scene.view.project(centre)[0]
        seen += bool(abs(x) < 0.95 and abs(y) < 0.95 and z > 0)
    assert seen == 12


def _check(mesh: Mesh) -> None:
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)
    assert mesh.faces.min() >= 0
    assert mesh.faces.max() < len(mesh.vertices)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    area = np.linalg.norm(flat, axis=1)
    agree = np.einsum("ij,ij->i", flat, mesh.normals[mesh.faces].mean(1))[area > 1e-9]
    assert (agree > 0).mean() > 0.98  # winding and stored normals tell the same side


@pytest.mark.parametrize(
    "mesh",
    [box(1, 2, 3), cylinder(0.5, 1), cylinder(0.5, 1, 0.0), sphere(0.4), soft(1, 0.3, 0.6, 0.3), prism(2, 1, 3),
     panel(1, 1), lathe(((0.0, 0.0), (0.3, 0.1), (0.1, 0.5), (0.0, 0.5)))],
)  # fmt: skip
def test_meshes_are_sound(mesh: Mesh) -> None:
    _check(mesh)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_makers_make_sound_things(name: str) -> None:
    rng = np.random.default_rng(0)
    thing = MAKERS[name](Kit(rng, draw_palette(rng, None)))
    assert thing.name == name
    assert thing.parts
    assert thing.name in vocabulary().objects
    for mesh, _ in thing.parts:
        assert np.isfinite(mesh.vertices).all()
        assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("texture", sorted(TEXTURES))
def test_textures_are_reflectances(texture: str) -> None:
    image = bitmap(Material((180.0, 90.0, 60.0), texture, seed=3))
    assert image.dtype == np.float32
    assert image.shape[2] == 3
    assert image.min() > 0
    assert image.max() < 1
    assert np.array_equal(image, bitmap(Material((180.0, 90.0, 60.0), texture, seed=3)))


def test_camera_projects_right_and_up() -> None:
    camera = look(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, -1.0]), 60.0)
    x, y, z = camera.project(np.array([[0.5, 1.25, 0.0]]))[0]
    assert (x > 0, y > 0) == (True, True)
    assert z == pytest.approx(2.0)
    assert x == pytest.approx(0.25 / np.tan(np.radians(30)))
