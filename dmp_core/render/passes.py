"""From a scene to images: the only file that speaks to Mitsuba.

Three renders of one scene: labels at pixel centres (one sample a pixel, no
jitter), albedo on a 3 x 3 sub-pixel grid, and path-traced light. Surfaces are
merged into few meshes (one with vertex colours, one a texture, one an emitter),
which loads several times faster than one mesh an object; the object of a pixel
is found again from its mesh and triangle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from dmp_core.render.materials import Material, bitmap, to_linear
from dmp_core.render.mesh import Mesh, join
from dmp_core.render.scene import SKY_DEPTH, Camera, Scene
from dmp_core.render.vocabulary import class_id

SUB = 3  # sub-pixels a side for the albedo; odd, so that one of them is the pixel's centre
_threads: int | None = None


class RendererMissing(ImportError):
    """Mitsuba is not installed."""


def configure_threads(n: int) -> None:
    """Threads that a render in this process may use; results do not depend on it."""
    global _threads
    if n < 1:
        raise ValueError(f"configure_threads: n must be at least 1, got {n}")
    _threads = n
    if _mitsuba.cache_info().currsize:
        import drjit

        drjit.set_thread_count(n)


@lru_cache(maxsize=1)
def _mitsuba() -> ModuleType:
    try:
        import mitsuba
    except ImportError as error:
        text = "the built-in renderer needs Mitsuba 3: install dmp-pipeline[render]"
        raise RendererMissing(text, name=error.name) from error
    mitsuba.set_variant("scalar_rgb")
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    if _threads is not None:
        import drjit

        drjit.set_thread_count(_threads)
    return mitsuba


@lru_cache(maxsize=8)
def _integrator(kind: str, max_depth: int = 0) -> Any:
    mi = _mitsuba()
    if kind == "labels":
        return mi.load_dict({"type": "aov", "aovs": "n:sh_normal,p:position,i:shape_index,k:prim_index"})
    return mi.load_dict({"type": "path", "max_depth": max_depth, "hide_emitters": False})


@dataclass
class Passes:
    """Raw results; H = W = resolution."""

    light: np.ndarray  # (H, W, 3) linear radiance
    albedo: np.ndarray  # (H, W, 3) linear 0..1, averaged over the pixel; on emitters their display colour
    normal: np.ndarray  # (H, W, 3) unit: right, up, toward the viewer
    depth: np.ndarray  # (H, W) metres along the optical axis
    objects: np.ndarray  # (H, W) int: 1-based instance, 0 = sky
    emitter: np.ndarray  # (H, W) bool: the pixel's centre lies on a light source or the sky


# ---------------------------------------------------------------- meshes


@dataclass
class _Group:
    """Triangles that share a surface, and whose they are."""

    mesh: Mesh
    owner: np.ndarray  # (F,) instance
    material: Material | None  # None: plain colours, one a vertex
    colours: np.ndarray | None = None  # (V, 3) linear


def _group_key(material: Material) -> tuple:
    if material.emission > 0:
        return ("emitter", material)
    return ("plain",) if material.texture == "plain" else ("texture", material)


def _grouped(parts: list[tuple[Mesh, Material, int]]) -> list[_Group]:
    buckets: dict[tuple, list[tuple[Mesh, Material, int]]] = {}
    for part in parts:
        buckets.setdefault(_group_key(part[1]), []).append(part)
    groups = []
    for key, members in buckets.items():
        mesh = join([m for m, _, _ in members])
        owner = np.concatenate([np.full(len(m.faces), o) for m, _, o in members])
        material = None if key[0] == "plain" else members[0][1]
        colours = None
        if material is None:
            rgb = [np.clip(to_linear(m.colour), 0.01, 0.92) for _, m, _ in members]
            colours = np.concatenate(
                [np.tile(c, (len(m.vertices), 1)) for c, (m, _, _) in zip(rgb, members, strict=True)]
            )
        elif material.texture != "plain" and material.period != 1.0:
            mesh = mesh._replace(uv=mesh.uv / material.period)
        groups.append(_Group(mesh, owner, material, colours))
    return groups


def _facing(mesh: Mesh, eye: np.ndarray) -> Mesh:
    """Triangles turned towards the eye: an emitter shines on one side only."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    away = np.einsum("ij,ij->i", np.cross(b - a, c - a), eye - a) < 0
    faces = mesh.faces.copy()
    faces[away] = faces[away][:, [0, 2, 1]]
    return mesh._replace(faces=faces)


def _texture(material: Material) -> dict[str, Any]:
    mi = _mitsuba()
    return {"type": "bitmap", "bitmap": mi.Bitmap(bitmap(material)), "raw": True}


def _shape(group: _Group, plugin: str, description: dict[str, Any], smooth: bool) -> Any:
    """A Mitsuba mesh; plugin says whether the description is its bsdf or its emitter."""
    mi = _mitsuba()
    props = mi.Properties()
    props[f"mesh_{plugin}"] = mi.load_dict(description)
    m = group.mesh
    shape = mi.Mesh(
        "m", len(m.vertices), len(m.faces), has_vertex_normals=smooth, has_vertex_texcoords=True, props=props
    )
    if group.colours is not None:
        shape.add_attribute("vertex_color", 3, group.colours.astype(np.float32).ravel())
    values = mi.traverse(shape)
    values["vertex_positions"] = m.vertices.astype(np.float32).ravel()
    if smooth:
        values["vertex_normals"] = m.normals.astype(np.float32).ravel()
    values["vertex_texcoords"] = m.uv.astype(np.float32).ravel()
    values["faces"] = m.faces.astype(np.uint32).ravel()
    values.update()
    return shape


_VERTEX_COLOUR = {"type": "mesh_attribute", "name": "vertex_color"}


def _lit_shape(group: _Group, strength: float) -> Any:
    """The group as a surface that light falls on, or as a grey light."""
    if group.material is not None and group.material.emission > 0:
        power = group.material.emission * strength
        return _shape(
            group, "emitter", {"type": "area", "radiance": {"type": "rgb", "value": [power] * 3}}, smooth=True
        )
    reflectance = _VERTEX_COLOUR if group.material is None else _texture(group.material)
    return _shape(
        group, "bsdf", {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": reflectance}}, smooth=True
    )


def _colour_shape(group: _Group, eye: np.ndarray) -> Any:
    """The group as a lamp of its own albedo: one sample reads the albedo off."""
    turned = _Group(_facing(group.mesh, eye), group.owner, group.material, group.colours)
    material = group.material
    if material is None:
        radiance: dict[str, Any] = _VERTEX_COLOUR
    elif material.texture == "plain":
        radiance = {"type": "rgb", "value": [float(v) for v in to_linear(material.colour)]}
    else:
        radiance = _texture(material)
    return _shape(turned, "emitter", {"type": "area", "radiance": radiance}, smooth=False)


# ---------------------------------------------------------------- renders


def _sensor(camera: Camera, size: int, sampler: dict[str, Any]) -> dict[str, Any]:
    mi = _mitsuba()
    origin = [float(v) for v in camera.origin]
    target = [float(v) for v in camera.origin + camera.forward]
    return {
        "type": "perspective", "fov": camera.fov, "near_clip": 0.02, "far_clip": 1000.0,
        "to_world": mi.ScalarTransform4f().look_at(origin, target, [float(v) for v in camera.up]),
        "film": {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
        "sampler": sampler,
    }  # fmt: skip


_CENTRES = {"type": "stratified", "sample_count": 1, "jitter": False}


def _render(scene: Any, integrator: Any, sensor: int, spp: int, seed: int) -> np.ndarray:
    mi = _mitsuba()
    return np.array(mi.render(scene, integrator=integrator, sensor=sensor, spp=spp, seed=seed), dtype=np.float64)


def _strength(material: Material | None, scene: Scene) -> float:
    """Lamps follow the mood; panes carry the mood's strength already."""
    return 1.0 if material is None or material.fixed else scene.mood.lamps


def _light_scene(scene: Scene, groups: list[_Group], resolution: int, spp: int) -> Any:
    mi = _mitsuba()
    content: dict[str, Any] = {"type": "scene"}
    content["light_view"] = _sensor(scene.view, resolution, {"type": "independent", "sample_count": spp})
    content["label_view"] = _sensor(scene.view, resolution, _CENTRES)
    for i, group in enumerate(groups):
        content[f"g{i}"] = _lit_shape(group, _strength(group.material, scene))
    if scene.outdoor:  # rooms have a fill light in its place
        content["ambient"] = {"type": "constant", "radiance": {"type": "rgb", "value": [scene.mood.ambient] * 3}}
    if scene.sun_direction is not None and scene.mood.sun > 0:
        content["sun"] = {
            "type": "directional", "direction": [float(v) for v in scene.sun_direction],
            "irradiance": {"type": "rgb", "value": [scene.mood.sun] * 3},
        }  # fmt: skip
    return mi.load_dict(content, optimize=False)


def _colour_scene(scene: Scene, groups: list[_Group], resolution: int) -> Any:
    mi = _mitsuba()
    content: dict[str, Any] = {"type": "scene", "view": _sensor(scene.view, resolution * SUB, _CENTRES)}
    backdrop = _grouped([(m, material, 0) for m, material in scene.backdrop])
    for i, group in enumerate([*groups, *backdrop]):
        content[f"g{i}"] = _colour_shape(group, scene.view.origin)
    return mi.load_dict(content, optimize=False)


def _owners(index: np.ndarray, triangle: np.ndarray, groups: list[_Group]) -> tuple[np.ndarray, np.ndarray]:
    """(instance, is emitter) of each pixel from its mesh (1-based, 0 = miss) and triangle number."""
    index, triangle = np.rint(index).astype(int), np.rint(triangle).astype(int)
    instance, emitter = np.zeros(index.shape, int), index == 0
    for k, group in enumerate(groups, start=1):
        here = index == k
        instance[here] = group.owner[triangle[here]]
        if group.material is not None and group.material.emission > 0:
            emitter |= here
    return instance, emitter


def run_passes(scene: Scene, resolution: int, samples_per_pixel: int, max_depth: int, seed: int) -> Passes:
    """Render all that the labels need. Deterministic in its arguments."""
    groups = _grouped([(m, material, o.instance) for o in scene.objects for m, material in o.parts])
    groups += _grouped([(m, material, 0) for m, material in scene.hidden])
    lit = _light_scene(scene, groups, resolution, samples_per_pixel)
    labels = _render(lit, _integrator("labels"), 1, 1, 0)
    light = _render(lit, _integrator("path", max_depth), 0, samples_per_pixel, seed % (1 << 31))
    fine = _render(_colour_scene(scene, groups, resolution), _integrator("path", 1), 0, 1, 0)
    albedo = np.clip(fine, 0, 1).reshape(resolution, SUB, resolution, SUB, 3).mean((1, 3))
    normal, depth = _camera_frame(labels[..., 0:3], labels[..., 3:6], scene.view)
    instance, emitter = _owners(labels[..., 6], labels[..., 7], groups)
    miss = instance == 0
    normal[miss], depth[miss] = (0.0, 0.0, 1.0), SKY_DEPTH
    return Passes(light[..., :3], albedo, normal, np.minimum(depth, SKY_DEPTH), instance, emitter)


def _camera_frame(normal: np.ndarray, position: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """World normals and positions (H, W, 3) -> unit normals right/up/toward-viewer, depth along the axis."""
    ray = position - camera.origin
    away = np.einsum("hwc,hwc->hw", normal, ray) > 0
    normal = np.where(away[..., None], -normal, normal)
    frame = np.stack([camera.right, camera.up, -camera.forward], axis=1)
    out = normal @ frame
    out /= np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-9)
    return out, ray @ camera.forward


def segmentation(objects: np.ndarray, scene: Scene) -> np.ndarray:
    """Instances (H, W) -> ADE20K class ids (H, W) uint8; a miss is sky."""
    table = np.full(len(scene.objects) + 1, class_id("sky"), dtype=np.uint8)
    for placed in scene.objects:
        table[placed.instance] = placed.class_id
    return table[objects]
