"""The public act: words in, image and labels out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmp_core.render.camera import choose_camera
from dmp_core.render.denoise import atrous, despeckle, fill_void
from dmp_core.render.families import RECIPES, build_room
from dmp_core.render.language import SceneSpec, read_prompt
from dmp_core.render.materials import GAMMA
from dmp_core.render.outdoor import build_outdoor
from dmp_core.render.passes import Passes, run_passes, segmentation
from dmp_core.render.scene import Scene

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class Rendered:
    """One image with its labels; H = W = resolution.

    rgb          (H, W, 3) uint8, display values (gamma 2.2). Unless `info["stylised"]`,
                 rgb = round(255 * albedo/255 * shading/255).
    normal       (H, W, 3) float32, unit; axes right, up, toward the viewer. Sky: (0, 0, 1).
    depth        (H, W) float32, metres along the optical axis (z, not ray length). Sky: 80.
    segmentation (H, W) uint8, ADE20K-150 class ids, 0-based.
    instances    (H, W) uint16, 1-based position in `info["objects"]`; 0 is sky.
    albedo       (H, W, 3) uint8, display values; on light sources the colour that is seen.
    shading      (H, W) uint8, display values; 255 on light sources and sky.
    info         JSON-able: family, objects, style, light, camera, exposure.
    """

    rgb: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray
    albedo: np.ndarray
    shading: np.ndarray
    instances: np.ndarray
    info: dict[str, Any]


def _generator(prompt: str, keyword: str, seed: int) -> np.random.Generator:
    words = zlib.crc32(f"{keyword}\n{prompt}".encode("utf-8", "surrogatepass"))
    return np.random.default_rng([int(seed) & 0xFFFFFFFFFFFF, words])


def build_scene(spec: SceneSpec, seed: int) -> Scene:
    """The scene of a spec, camera included. Needs no Mitsuba."""
    rng = _generator(spec.prompt, spec.keyword, seed)
    if spec.family not in RECIPES:
        return build_outdoor(spec, rng)[0]
    scene, room = build_room(spec, rng)
    scene.camera = choose_camera(scene, room, rng)
    return scene


def _display(linear: np.ndarray) -> np.ndarray:
    """Linear 0..1 -> uint8 display values."""
    return np.rint(255.0 * np.clip(linear, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def _shading(
    passes: Passes, white_point: float, levels: int, exposure: float | None = None
) -> tuple[np.ndarray, float]:
    """Denoised grey shading, linear 0..1 after exposure, (H, W); and the exposure, measured unless given."""
    ratio = (passes.light @ _LUMINANCE) / np.maximum(passes.albedo @ _LUMINANCE, 0.004)
    near_light = _grow(passes.emitter)
    weight = (~near_light).astype(np.float64)
    if not weight.any():
        return np.ones_like(ratio), 1.0
    smooth = atrous(despeckle(ratio), weight, passes.normal, passes.depth, passes.objects, levels).astype(np.float64)
    # What the filter could not reach (thin things before a lamp) takes its neighbours' light.
    reached = (weight > 0) | (smooth != ratio)
    smooth = fill_void(smooth, reached.astype(np.float64))
    if exposure is None:
        exposure = white_point / max(float(np.quantile(smooth[~near_light], 0.94)), 1e-6)
    return np.where(passes.emitter, 1.0, np.clip(exposure * smooth, 0, 1)), exposure


def _grow(mask: np.ndarray) -> np.ndarray:
    """The mask and its eight neighbours."""
    padded = np.pad(mask, 1)
    h, w = mask.shape
    return np.logical_or.reduce([padded[i : i + h, j : j + w] for i in range(3) for j in range(3)])


def compose(albedo: np.ndarray, shading: np.ndarray) -> np.ndarray:
    """rgb8 from albedo8 (H, W, 3) and shading8 (H, W): the identity, exact by construction."""
    return np.rint(albedo.astype(np.float64) * shading[..., None].astype(np.float64) / 255.0).astype(np.uint8)


def render_prompt(
    prompt: str, keyword: str, seed: int, *, resolution: int = 64, samples_per_pixel: int = 16, max_depth: int = 4
) -> Rendered:
    """Render what the prompt says, the rest drawn from the seed.

    The same arguments give the same bytes in any process and any order. Raises
    `RendererMissing` without Mitsuba; no text ever fails.
    """
    spec = read_prompt(prompt, keyword)
    scene = build_scene(spec, seed)
    rendered = render_scene(spec, scene, seed, resolution, samples_per_pixel, max_depth)
    return rendered if spec.style is None else restyled(rendered, spec.style, seed)


def render_scene(
    spec: SceneSpec,
    scene: Scene,
    seed: int,
    resolution: int,
    samples_per_pixel: int,
    max_depth: int,
    exposure: float | None = None,
) -> Rendered:
    """Render a scene without its style. exposure: another picture's, so that the two compare; None: its own."""
    passes = run_passes(scene, resolution, samples_per_pixel, max_depth, seed)
    linear, exposure = _shading(passes, scene.mood.white_point, 3 if resolution <= 160 else 4, exposure)
    albedo, shading = _display(passes.albedo), _display(linear)
    return Rendered(
        rgb=compose(albedo, shading), normal=passes.normal.astype(np.float32), depth=passes.depth.astype(np.float32),
        segmentation=segmentation(passes.objects, scene), albedo=albedo, shading=shading,
        instances=passes.objects.astype(np.uint16), info=_info(spec, scene, exposure),
    )  # fmt: skip


def restyled(rendered: Rendered, style: str, seed: int) -> Rendered:
    """The same picture in a style; labels stay."""
    from dmp_core.render.styles import apply_style

    rng = np.random.default_rng([int(seed) & 0xFFFFFFFFFFFF, 7])
    rgb = apply_style(style, rendered.rgb, rendered.normal, rendered.depth, rendered.instances.astype(int), rng)
    return replace(rendered, rgb=rgb)


def _info(spec: SceneSpec, scene: Scene, exposure: float) -> dict[str, Any]:
    from dmp_core.resources import ade20k_classes

    camera = scene.view
    objects = [
        {
            "name": o.name, "class": ade20k_classes()[o.class_id], "class_id": o.class_id,
            "colour": None if o.thing.primary is None else [round(c) for c in o.thing.primary.colour],
        }
        for o in scene.objects
    ]  # fmt: skip
    return {
        "family": spec.family, "objects": objects, "style": spec.style, "stylised": spec.style is not None,
        "decor": spec.decor, "light": scene.mood_name, "outdoor": scene.outdoor, "exposure": round(exposure, 6),
        "camera": {
            "fov_degrees": round(camera.fov, 4), "origin": [round(float(v), 5) for v in camera.origin],
            "right": [round(float(v), 7) for v in camera.right], "up": [round(float(v), 7) for v in camera.up],
            "forward": [round(float(v), 7) for v in camera.forward],
        },
    }  # fmt: skip
