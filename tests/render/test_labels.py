"""The labels against closed forms: normals, depth, segments, albedo and shading."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_core.render import Rendered, build_scene, read_prompt
from dmp_core.render.denoise import atrous, despeckle
from dmp_core.render.kit import Thing
from dmp_core.render.materials import Material, to_linear
from dmp_core.render.mesh import box, panel, slab
from dmp_core.render.passes import Passes, run_passes, segmentation
from dmp_core.render.scene import Scene, look
from dmp_core.resources import ade20k_classes
from tests.render.conftest import Render

CASES = [("a bedroom", "bedroom", 1), ("a kitchen", "kitchen", 2), ("a street", "street", 3), ("a hall", "lobby", 4)]


def _rays(rendered: Rendered) -> np.ndarray:
    """(H, W, 3) rays through the pixel centres, world frame, length 1 along the optical axis."""
    camera, n = rendered.info["camera"], rendered.depth.shape[0]
    t = np.tan(np.radians(camera["fov_degrees"]) / 2)
    centre = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(centre * t, -centre * t)
    right, up, forward = (np.array(camera[k]) for k in ("right", "up", "forward"))
    return x[..., None] * right + y[..., None] * up + forward


def _in_camera(rendered: Rendered, world: tuple[float, float, float]) -> np.ndarray:
    camera = rendered.info["camera"]
    return np.array([
        np.dot(world, camera["right"]), np.dot(world, camera["up"]), -np.dot(world, camera["forward"]),
    ])  # fmt: skip


def _ids(rendered: Rendered, name: str) -> np.ndarray:
    return rendered.segmentation == ade20k_classes().index(name)


@pytest.mark.parametrize("case", CASES)
def test_shapes_types_and_ranges(render: Render, case: tuple[str, str, int]) -> None:
    r = render(*case)
    assert (r.rgb.shape, r.rgb.dtype) == ((48, 48, 3), np.uint8)
    assert (r.normal.shape, r.normal.dtype) == ((48, 48, 3), np.float32)
    assert (r.depth.shape, r.depth.dtype) == ((48, 48), np.float32)
    assert (r.segmentation.shape, r.segmentation.dtype) == ((48, 48), np.uint8)
    assert (r.albedo.dtype, r.shading.dtype, r.instances.dtype) == (np.uint8, np.uint8, np.uint16)
    assert np.isfinite(r.depth).all()
    assert r.depth.min() > 0.02
    assert r.depth.max() <= 80.0
    assert r.segmentation.max() < 150


def test_large_images_are_what_small_ones_show(render: Render) -> None:
    """Above 160 pixels the denoiser takes one more level."""
    large, small = render("a red bedroom", "bedroom", 1, 192), render("a red bedroom", "bedroom", 1)
    means = large.rgb.reshape(48, 4, 48, 4, 3).mean(axis=(1, 3))
    assert np.abs(means - small.rgb).mean() < 16


@pytest.mark.parametrize("case", CASES)
def test_normals_are_unit_and_face_the_viewer(render: Render, case: tuple[str, str, int]) -> None:
    r = render(*case)
    assert np.allclose(np.linalg.norm(r.normal, axis=-1), 1, atol=1e-5)
    rays, camera = _rays(r), r.info["camera"]
    frame = np.stack([camera["right"], camera["up"], -np.array(camera["forward"])], axis=1)
    facing = -(r.normal * (rays @ frame)).sum(-1)
    assert (facing[r.instances > 0] > -1e-3).all()


def test_normal_axes(render: Render) -> None:
    """Floor up, ceiling down, back wall towards the viewer, left wall to the right."""
    r = render("an empty bedroom", "bedroom", 1)
    for name, world in (("floor", (0, 1, 0)), ("ceiling", (0, -1, 0))):
        assert np.allclose(r.normal[_ids(r, name)], _in_camera(r, world), atol=1e-4)
    walls = r.normal[_ids(r, "wall")]
    expected = np.stack([_in_camera(r, w) for w in ((0, 0, 1), (1, 0, 0), (-1, 0, 0), (0, 1, 0))])
    assert (np.abs(walls[:, None] - expected).max(-1).min(1) < 1e-4).all()
    assert r.normal[_ids(r, "floor")][:, 1].min() > 0.8
    assert (_in_camera(r, (0, 0, 1))[2]) > 0.6


def test_depth_of_floor_and_ceiling_planes(render: Render) -> None:
    """z-depth of a horizontal plane at pixel centres: (plane height - eye height) / ray's y."""
    r = render("an empty bedroom", "bedroom", 1)
    rays, eye = _rays(r), r.info["camera"]["origin"][1]
    floor = _ids(r, "floor")
    closed = -eye / rays[..., 1][floor]
    assert np.abs(r.depth[floor] - closed).max() < 1e-3
    ceiling = _ids(r, "ceiling")
    height = eye + r.depth[ceiling] * rays[..., 1][ceiling]
    assert np.ptp(height) < 1e-3


@pytest.mark.parametrize("case", CASES)
def test_image_is_albedo_times_shading(render: Render, case: tuple[str, str, int]) -> None:
    r = render(*case)
    product = 255.0 * (r.albedo / 255.0) * (r.shading[..., None] / 255.0)
    assert np.abs(r.rgb - product).max() <= 0.5 + 1e-9
    assert not r.info["stylised"]


@pytest.mark.parametrize("case", CASES)
def test_segments_follow_instances(render: Render, case: tuple[str, str, int]) -> None:
    r = render(*case)
    table = np.array([ade20k_classes().index("sky")] + [o["class_id"] for o in r.info["objects"]])
    assert np.array_equal(table[r.instances], r.segmentation)
    if not r.info["outdoor"]:
        assert (r.instances > 0).all()


def test_sky_is_far_and_faces_the_viewer(render: Render) -> None:
    r = render("a sunny beach", "beach", 1)
    sky = _ids(r, "sky")
    assert sky.mean() > 0.1
    assert (r.depth[sky] == 80.0).all()
    assert (r.normal[sky] == (0, 0, 1)).all()
    assert (r.shading[sky] == 255).all()


# ---------------------------------------------------------------- a scene with known answers

RED, GREEN = (200.0, 40.0, 40.0), (40.0, 160.0, 60.0)


@pytest.fixture(scope="module")
def known() -> tuple[Scene, Passes]:
    """A red box of one metre on a white floor before a green wall; the camera looks straight ahead."""
    scene = Scene(outdoor=True)
    scene.add(Thing("floor", (8, 0, 8)).add(slab(8, 8), Material((230.0, 230.0, 230.0))), 0, 0, 0)
    scene.add(Thing("wall", (8, 6, 0)).add(panel(8, 6), Material(GREEN)), 0, 0, -3)
    scene.add(Thing("box", (1, 1, 1)).add(box(1, 1, 1), Material(RED)), 0.5, 0, -1)
    scene.camera = look(np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.0, 0.0]), 60.0)
    return scene, run_passes(scene, 64, 8, 3, 0)


def test_object_covers_its_projection(known: tuple[Scene, Passes]) -> None:
    scene, passes = known
    front = np.array([[x, y, -0.5] for x in (0.0, 1.0) for y in (0.0, 1.0)])
    uv = scene.view.project(front)[:, :2]
    columns = (np.sort(uv[:, 0])[[0, -1]] + 1) / 2 * 64
    rows = (1 - np.sort(uv[:, 1])[[-1, 0]]) / 2 * 64
    centre = np.arange(64) + 0.5
    inside = np.ix_((centre > rows[0]) & (centre < rows[1]), (centre > columns[0]) & (centre < columns[1]))
    assert (passes.objects[inside] == 3).all()
    assert np.allclose(passes.depth[inside], 3.5, atol=1e-4)
    expected = np.zeros((64, 64), bool)
    expected[inside] = True
    # The eye is level with the top, and the left side faces it edge on: nothing else of the box shows.
    side = (passes.objects == 3) & ~expected
    assert side.sum() <= 64
    assert (segmentation(passes.objects, scene)[inside] == ade20k_classes().index("box")).all()


def test_wall_depth_is_along_the_axis_not_the_ray(known: tuple[Scene, Passes]) -> None:
    _, passes = known
    wall = passes.objects == 2
    assert np.allclose(passes.depth[wall], 6.0, atol=1e-4)
    assert np.allclose(passes.normal[wall], (0, 0, 1), atol=1e-5)


def test_albedo_is_the_paint(known: tuple[Scene, Passes]) -> None:
    _, passes = known
    inner = passes.objects == 3
    inner[1:] &= inner[:-1]
    inner[:-1] &= inner[1:]
    inner[:, 1:] &= inner[:, :-1]
    inner[:, :-1] &= inner[:, 1:]
    assert np.allclose(passes.albedo[inner], to_linear(RED), atol=1e-4)


def test_light_never_exceeds_a_white_room(known: tuple[Scene, Passes]) -> None:
    _, passes = known
    ratio = passes.light / passes.albedo
    assert (ratio[passes.objects > 0] >= 0).all()
    assert passes.light.mean() > 0.01


# ---------------------------------------------------------------- denoising


def test_denoiser_halves_the_noise_and_keeps_object_edges() -> None:
    rng = np.random.default_rng(0)
    clean = np.full((32, 32), 0.4)
    clean[:, 16:] = 0.8
    group = (np.arange(32) >= 16)[None, :] * np.ones((32, 1), int)
    noisy = clean * rng.gamma(20, 1 / 20, clean.shape)
    normal = np.zeros((32, 32, 3))
    normal[..., 2] = 1
    out = atrous(noisy, np.ones_like(noisy), normal, np.full((32, 32), 3.0), group)
    assert np.abs(out - clean).mean() < 0.4 * np.abs(noisy - clean).mean()
    assert out[:, :16].max() < 0.6 < out[:, 16:].min()


def test_denoiser_fills_void_pixels() -> None:
    value, weight = np.full((16, 16), 0.5), np.ones((16, 16))
    value[8, 8], weight[8, 8] = 99.0, 0.0
    normal = np.zeros((16, 16, 3))
    normal[..., 2] = 1
    out = atrous(value, weight, normal, np.full((16, 16), 2.0), np.zeros((16, 16)))
    assert np.allclose(out, 0.5, atol=1e-3)


def test_despeckle_clamps_fireflies_only() -> None:
    value = np.full((8, 8), 0.5)
    value[3, 3] = 50.0
    out = despeckle(value)
    assert out[3, 3] <= 1.01
    value[3, 3] = 0.5
    assert np.array_equal(despeckle(value), value)


def test_exposure_is_set_by_the_bright_tail(render: Render) -> None:
    r = render("a sunny bedroom", "bedroom", 1)
    lit = (r.shading / 255.0) ** 2.2
    assert 0.75 < np.quantile(lit[r.shading < 255], 0.96) <= 1.0


def test_build_scene_needs_no_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mitsuba", None)
    assert build_scene(read_prompt("a bedroom", "bedroom"), 0).objects
