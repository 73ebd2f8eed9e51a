"""What a label is in memory, in a file, and in front of the VAE (design §3).

In memory, everywhere in this package, channels last:

    normal        (H, W, 3) float, unit vectors, axes right / up / toward the viewer; (0, 0, 0) = no surface
    depth         (H, W)    float, metres along the optical axis; not positive or not finite = no surface
    segmentation  (H, W)    uint8, class ids (ADE20K-150 order); 255 = no label
    albedo        (H, W, 3) [0, 1] float, or uint8 codes
    shading       (H, W)    [0, 1] float, or uint8 codes

Files (`encode_label`, `decode_label`) need numpy and PIL alone; the VAE side (`to_vae_image`,
`from_vae_image`) imports torch when it is called.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmp_core.config.stages import TASKS, Task
from dmp_core.errors import InputError
from dmp_core.evaluation.colours import IGNORED, load_palette
from dmp_core.store import open_image, read_npy

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]

LABEL_EXTENSIONS: dict[Task, str] = {
    "normal": "normal.png",
    "depth": "depth.npy",
    "segmentation": "seg.png",
    "albedo": "albedo.png",
    "shading": "shading.png",
}
"""Member name of each task's label in a shard, after the sample's key."""

CHANNELS: dict[Task, int] = {"normal": 3, "depth": 1, "segmentation": 1, "albedo": 3, "shading": 1}
# Chosen once: zlib's output depends on it, and shards must come out byte-identical.
_PNG_LEVEL = 6
# An 8-bit code cannot hold a zero vector exactly: (128, 128, 128) decodes to length 0.007.
_NO_SURFACE = 0.5


# -------------------------------------------------------------------------------------- files
def encode_label(task: Task, array: Array) -> tuple[str, bytes]:
    """One label as a file of the dataset: (extension, bytes). The same array gives the same bytes.

    array: as the module docstring says, channels last. Depth is kept as float16 metres: relative
    error at most 2⁻¹¹; the other tasks as 8-bit PNG.
    Raises InputError on a wrong shape, on NaN, and on ids or values outside their range.
    """
    array = _checked(task, np.asarray(array))
    if task == "depth":
        return LABEL_EXTENSIONS[task], npy_bytes(_half(array))
    return LABEL_EXTENSIONS[task], png_bytes(_codes(task, array))


def decode_label(task: Task, data: bytes) -> Array:
    """The inverse of `encode_label`: float32 (normals unit again), or uint8 ids for segmentation.

    Raises InputError when the bytes are not what the task's files hold.
    """
    _check_task(task)
    if task == "depth":
        return _checked(task, _read_npy(data)).astype(np.float32)
    codes = _checked(task, _read_png(data, task))
    if task == "segmentation":
        return codes
    values = codes.astype(np.float32) / 255
    return unit(values * 2 - 1) if task == "normal" else values


def png_bytes(image: Array) -> bytes:
    """Deterministic PNG of a uint8 image (H, W) or (H, W, 3)."""
    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(f"png: expected uint8 (H, W) or (H, W, 3), found {image.dtype} {image.shape}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def npy_bytes(array: Array) -> bytes:
    """A plain .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) scaled to length 1; those shorter than 0.5 carry no direction and become 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length < _NO_SURFACE, 0, vectors / np.maximum(length, _NO_SURFACE)).astype(np.float32)


def _codes(task: Task, array: Array) -> NDArray[np.uint8]:
    """8-bit codes of a label."""
    if array.dtype == np.uint8:
        return array
    values = (array.astype(np.float32) + 1) / 2 if task == "normal" else array.astype(np.float32)
    codes: NDArray[np.uint8] = (values * 255).round().clip(0, 255).astype(np.uint8)
    return codes


def _half(depth: Array) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # beyond 65504 m is as good as infinitely far
        half: NDArray[np.float16] = depth.astype(np.float16)
    return half


def _read_npy(data: bytes) -> Array:
    try:
        loaded = read_npy(data)
    except InputError as error:
        raise InputError(f"depth: {error}; write float16 metres with numpy.save") from None
    if not np.issubdtype(loaded.dtype, np.floating):
        raise InputError(f"depth: expected metres as floats in the .npy file, found {loaded.dtype}")
    return loaded


def _read_png(data: bytes, task: Task) -> Array:
    wanted = "RGB" if CHANNELS[task] == 3 else "L"
    try:
        image = open_image(data, ("PNG",))
    except InputError as error:
        raise InputError(f"{task}: {error}") from None
    # Any other mode would have to be converted, and conversion changes ids and values.
    if image.mode != wanted:
        raise InputError(f"{task}: expected an 8-bit {wanted} image, found mode {image.mode}; convert the file")
    return np.array(image)


# ------------------------------------------------------------------------------------- checks
def _check_task(task: str) -> None:
    if task not in TASKS:
        raise InputError(f"task: {task!r} is unknown; choose one of {', '.join(TASKS)}")


def _checked(task: Task, array: Array, batch: bool = False) -> Array:
    """The array, after its shape and values were held against what the task's labels are."""
    _check_task(task)
    plain = array.ndim - batch == 2 and CHANNELS[task] == 1
    coloured = array.ndim - batch == 3 and array.shape[-1] == CHANNELS[task] == 3
    if not (plain or coloured):
        shape = "(H, W, 3)" if CHANNELS[task] == 3 else "(H, W)"
        raise InputError(f"{task}: expected {'a batch of ' if batch else ''}{shape}, found shape {array.shape}")
    if task == "segmentation":
        return _checked_ids(array)
    if array.dtype == np.uint8 and task != "depth":
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"{task}: expected {'floats' if task == 'depth' else 'floats or uint8 codes'}, found {array.dtype}"
        )
    _check_range(task, array)
    return array


def _check_range(task: Task, array: Array) -> None:
    low, high = {"normal": (-1.0, 1.0), "depth": (-np.inf, np.inf)}.get(task, (0.0, 1.0))
    # NaN fails both comparisons; the slack is what half precision adds to a unit vector.
    if array.size and not (array.min() >= low - 1e-3 and array.max() <= high + 1e-3):
        raise InputError(
            f"{task}: values {array.min():.4g} … {array.max():.4g} leave {low:g} … {high:g}; "
            "are they codes in another unit, or NaN?"
        )


def _checked_ids(array: Array) -> NDArray[np.uint8]:
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"segmentation: expected integer class ids, found {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() <= 255):
        raise InputError(f"segmentation: ids {array.min()} … {array.max()} do not fit 8 bits; {IGNORED} means no label")
    ids: NDArray[np.uint8] = array.astype(np.uint8)
    return ids


# ---------------------------------------------------------------------------------- geometry
def flip(task: Task, label: Array) -> Array:
    """The label of the mirrored image: mirrored, and for normals with x negated (they point right).

    label: (H, W[, 3]) or a batch of them. Returns a new array of the same dtype.
    """
    _check_task(task)
    axis = -2 if CHANNELS[task] == 3 else -1
    mirrored = np.flip(label, axis).copy()
    if task == "normal":
        mirrored[..., 0] = 255 - mirrored[..., 0] if mirrored.dtype == np.uint8 else -mirrored[..., 0]
    return mirrored


def resize(task: Task, label: Array, size: tuple[int, int]) -> Array:
    """One label (H, W[, 3]) at `size` = (height, width): nearest for ids and depth, bilinear for the rest.

    Depth is not averaged, since between two surfaces there is none. Normals are made unit again.
    """
    label = _checked(task, label)
    if label.shape[:2] == size:
        return label
    method = Image.Resampling.NEAREST if task in ("segmentation", "depth") else Image.Resampling.BILINEAR
    if label.dtype == np.uint8:
        return np.array(Image.fromarray(label).resize(size[::-1], method))
    planes = np.moveaxis(np.atleast_3d(label.astype(np.float32)), -1, 0)
    resized = [np.array(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], method)) for plane in planes]
    stacked = np.stack(resized, -1)
    if task == "normal":
        return unit(stacked)
    return stacked if CHANNELS[task] == 3 else stacked[..., 0]


# ------------------------------------------------------------------------------------ the VAE
def to_vae_image(task: Task, label: Array, *, depth_scale: float, palette: str = "default") -> Tensor:
    """Labels as the three-channel images that the VAE encodes: (B, 3, H, W) float32 in [-1, 1].

    label: a batch, channels last: normal (B, H, W, 3), depth (B, H, W) …
    depth_scale: metres that become white; deeper is clipped (8 in the paper).
    palette: colour code of the classes, a name in `data_manifests/palettes/`; unlabelled pixels are black.

    normal n ↦ n; depth d ↦ 2·clip(d / depth_scale, 0, 1) - 1 in all channels; segmentation ↦ the
    class's colour; albedo and shading v ↦ 2v - 1.
    """
    import torch

    label = _checked(task, np.asarray(label), batch=True)
    values = _unit_range(task, label, depth_scale, palette)
    if values.ndim == 3:
        values = np.repeat(values[..., None], 3, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values * 2 - 1, -1, 1), dtype=np.float32))


def _unit_range(task: Task, label: Array, depth_scale: float, palette: str) -> Array:
    """Labels as colours or grey levels in [0, 1]."""
    if task == "segmentation":
        return load_palette(palette).encode(label).astype(np.float32) / 255
    if task == "depth":
        # Nothing was hit: as far away as can be told.
        far = np.where(np.isfinite(label) & (label > 0), label, depth_scale)
        return np.clip(far.astype(np.float32) / np.float32(depth_scale), 0, 1)
    if label.dtype == np.uint8:
        return label.astype(np.float32) / 255
    values = label.astype(np.float32)
    return (values + 1) / 2 if task == "normal" else values


def from_vae_image(
    task: Task,
    image: Tensor,
    *,
    depth_scale: float,
    palette: str = "default",
    classes: Iterable[int] | Mapping[int, float] | None = None,
    colour_noise: float | None = None,
) -> Array:
    """The inverse: labels, channels last, from decoded images (B, 3, H, W), nominally in [-1, 1].

    classes: ids that segmentation chooses among; None: all that the palette has. Where two classes meet, an image
        has colours in between, which may be a third class's: the fewer there are, the less often.
    colour_noise: chooses the likeliest class, not that of the nearest colour (`Palette.likeliest`); `classes` then
        gives the share of each.
    Returns float32 unit normals (B, H, W, 3), metres (B, H, W), uint8 ids (B, H, W), albedo (B, H, W, 3) or shading
    (B, H, W) in [0, 1]. Depth and shading are the channels' mean. Raises `NotFinite` on NaN and infinity, which would
    become labels that look like any other.
    """
    from dmp_core.finite import check_outputs

    _check_task(task)
    check_outputs(image)
    values = np.moveaxis(image.detach().float().cpu().numpy(), 1, -1)
    if task == "normal":
        return _direction(values)
    # Clipped after the mean: channels that overshoot and undershoot should cancel.
    values = (values + 1) / 2
    if task == "segmentation":
        colours = (values * 255).round().clip(0, 255).astype(np.uint8)
        if colour_noise is None:
            return load_palette(palette).decode(colours, classes)
        assert isinstance(classes, Mapping), "shares, for likelihoods"
        return load_palette(palette).likeliest(colours, classes, colour_noise)
    if task == "albedo":
        return np.clip(values, 0, 1).astype(np.float32)
    grey = np.clip(values.mean(-1), 0, 1)
    return (grey * depth_scale if task == "depth" else grey).astype(np.float32)


def _direction(values: Array) -> Array:
    """Unit vectors of any non-zero length; an exact zero looks at the viewer, the likeliest guess."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    toward = np.array([0, 0, 1], dtype=np.float32)
    return np.where(length > 1e-6, values / np.maximum(length, 1e-6), toward).astype(np.float32)


def image_to_vae(images: Array) -> Tensor:
    """RGB images (B, H, W, 3) uint8 as the VAE sees them: (B, 3, H, W) float32 in [-1, 1]."""
    import torch

    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"images: expected uint8 (B, H, W, 3), found {images.dtype} {images.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    return pixels.float() / 127.5 - 1
