"""Relighting and relief against closed forms, and the page's images."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import numpy as np
import pytest

from dmp_core.app.figures import figures, overlay
from dmp_core.app.relief import LONGEST, glb, surface
from dmp_core.app.relight import light_direction, relit, shading
from tests.report.rooms import room


# --------------------------------------------------------------------------------------- light
@pytest.mark.parametrize(
    ("azimuth", "elevation", "direction"),
    [(0, 0, (1, 0, 0)), (90, 0, (0, 1, 0)), (180, 0, (-1, 0, 0)), (-90, 0, (0, -1, 0)), (30, 90, (0, 0, 1))],
)
def test_the_light_comes_from_where_the_sliders_say(azimuth: float, elevation: float, direction: Any) -> None:
    np.testing.assert_allclose(light_direction(azimuth, elevation), direction, atol=1e-12)


@pytest.mark.parametrize("elevation", [0, 30, 60, 90])
def test_a_wall_that_faces_the_viewer_is_lit_by_lamberts_law(elevation: float) -> None:
    normals = np.zeros((4, 6, 3))
    normals[..., 2] = 1
    found = shading(normals, light_direction(75, elevation), ambient=0)
    np.testing.assert_allclose(found, np.sin(np.radians(elevation)), atol=1e-12)  # sin: measured from the wall
    np.testing.assert_allclose(shading(7 * normals, light_direction(75, elevation), ambient=0), found)


def test_full_light_gives_the_albedo_and_none_its_ambient_share() -> None:
    albedo, normals = room(1)["albedo"], np.zeros((32, 32, 3))
    normals[..., 0] = 1
    np.testing.assert_array_equal(relit(albedo, normals, 0, 0), np.round(albedo * 255))
    np.testing.assert_array_equal(relit(albedo, normals, 180, 0, ambient=0.25), np.round(albedo * 0.25 * 255))
    np.testing.assert_array_equal(relit(albedo, np.zeros_like(normals), 0, 0, ambient=0), 0)


# -------------------------------------------------------------------------------------- relief
def test_a_plane_has_a_vertex_per_pixel_and_two_triangles_per_square() -> None:
    made = surface(np.full((3, 4), 2.0), np.full((3, 4, 3), 9, np.uint8), fov=90)
    assert (made.vertices.shape, made.triangles.shape) == ((12, 3), (2 * 2 * 3, 3))
    # 90 degrees: the image is as wide as twice its distance, 4 m, so pixels are 1 m; centres at half metres.
    np.testing.assert_allclose(made.vertices[:4, 0], [-1.5, -0.5, 0.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(made.vertices[::4, 1], [1, 0, -1], atol=1e-6)
    np.testing.assert_allclose(made.vertices[:, 2], -2)
    corners = made.vertices[made.triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(across, np.tile([0, 0, 1.0], (12, 1)), atol=1e-5)  # each faces the camera, 1/2 m²


def test_holes_and_edges_of_objects_are_torn() -> None:
    depth, rgb = np.full((4, 4), 2.0), np.zeros((4, 4, 3), np.uint8)
    depth[0, 0] = np.nan
    assert (len(surface(depth, rgb, 60).vertices), len(surface(depth, rgb, 60).triangles)) == (15, 17)
    depth = np.where(np.arange(4) < 2, 2.0, 4.0) * np.ones((4, 1))
    assert len(surface(depth, rgb, 60).triangles) == 2 * 2 * 3  # the middle column of squares is missing
    assert len(surface(np.zeros((4, 4)), rgb, 60).vertices) == 0


def test_large_maps_keep_their_field_of_view() -> None:
    width = LONGEST * 2
    made = surface(np.full((8, width), 1.0), np.zeros((8, width, 3), np.uint8), fov=90)
    assert len(made.vertices) == 4 * LONGEST
    assert made.vertices[:, 0].min() == pytest.approx(-1 + 1 / width)


def test_the_file_is_binary_gltf_that_holds_the_surface() -> None:
    scene = room(2)
    made = surface(scene["depth"], scene["rgb"], 60)
    data = glb(made)
    magic, version, length, size, kind = struct.unpack_from("<4sII I4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    content = json.loads(data[20 : 20 + size])
    binary = data[20 + size + 8 :]
    assert len(binary) == content["buffers"][0]["byteLength"]

    def read(number: int, kind: str, columns: int) -> Any:
        view = content["bufferViews"][content["accessors"][number]["bufferView"]]
        values = np.frombuffer(binary, kind, view["byteLength"] // np.dtype(kind).itemsize, view["byteOffset"])
        assert len(values) == content["accessors"][number]["count"] * columns
        return values.reshape(-1, columns)

    np.testing.assert_array_equal(read(0, "<f4", 3), made.vertices)
    np.testing.assert_array_equal(read(2, "<u4", 1).reshape(-1, 3), made.triangles)
    linear = read(1, "<u2", 4)[:, :3] / 65535
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb * 255, made.colours, atol=0.5)
    assert content["accessors"][0]["min"] == pytest.approx(made.vertices.min(0).tolist())


# ------------------------------------------------------------------------------------- figures
def test_an_overlay_mixes_at_the_images_size() -> None:
    image, above = np.full((4, 6, 3), 100, np.uint8), np.full((2, 3, 3), 200, np.uint8)
    assert (overlay(image, above, 0) == 100).all()
    assert (overlay(image, above, 0.25) == 125).all()
    assert (overlay(image, above, 1) == 200).all()


def test_figures_are_escaped_and_tell_themselves_apart() -> None:
    html = figures({"normal": np.zeros((2, 2, 3), np.uint8), "depth": np.zeros((2, 2, 3), np.uint8)}, '"><script>')
    assert "<script>" not in html
    assert re.findall('alt="(.*?)"', html) == [f"{name} of &quot;&gt;&lt;script&gt;" for name in ("normal", "depth")]
    assert "http" not in html
