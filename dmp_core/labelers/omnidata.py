"""Omnidata v2: surface normals (Eftekhar et al., ICCV 2021; version 2 and `3dcc`: Kar et al., CVPR 2022).

Both published networks are one DPT (hybrid of ResNet-50 and ViT-B) with the same names of weights:

- `v2`, `omnidata_dpt_normal_v2.ckpt`: images are fed unchanged, the last layer is rectified;
- `3dcc`, `rgb2normal_omni_dpt_2d3daug.pth` of 3DCommonCorruptions, the one used for DMP's labels: images are
  fed in [-1, 1], the last layer is linear, and the head doubles its resolution without aligned corners.

**Axes.** Both predict a colour code c in [0, 1]³, and 2c - 1 is the normal in the axes right, down, away
from the viewer. So red grows to the right, green grows *downwards*, and blue grows *away* from the viewer: a
wall that faces the camera is (0.5, 0.5, 0). In the axes of this package (right, up, toward the viewer):

    x = 2 c_red - 1        y = 1 - 2 c_green        z = 1 - 2 c_blue

Published evidence: the authors' loader (EPFL-VILAB/omnidata, `dataloader/transforms.py`, `transform_normal_cam`)
reaches PyTorch3D's left, up, away by negating red and green alone; 2c - 1 read from v2's output of a room
(maturk/dn-splatter, issue 9) is -0.97 in green on the floor, +0.98 on the ceiling, -0.81 in blue on the wall
ahead; and Lotus (EnVision-Research/Lotus, issue 20) inverts all three channels to get left, up, toward.
The authors' statement about +z in EPFL-VILAB/omnidata, issue 13 ("from screen to me"), contradicts their own loader,
which is quoted there, and the readings.
"""

from __future__ import annotations

import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from dmp_core.errors import InputError, MissingExtra
from dmp_core.labelers.common import DTYPES, autocast, check_images, check_options, finite_maps, in_parts
from dmp_core.labelers.weights import check_shapes, find_file, named_tensors, read, shapes

MULTIPLE = 32
"""Height and width of the network's input are multiples of this, the stride of its coarsest features."""
# Shorter vectors have no direction: the code is grey, or resizing averaged opposite normals.
_SHORTEST = 1e-6
# The package has module state: the name through which it downloads, and the features of the last pass.
_PACKAGE = threading.Lock()


@dataclass(frozen=True)
class Variant:
    """The differences between the published networks."""

    file: str
    prefix: str
    """Prefix of the network's parameter names in the published file."""
    mean: float
    std: float
    """The network's input is (image - mean) / std."""
    rectified: bool
    """The last layer is a ReLU."""
    aligned: bool
    """The head's bilinear enlargement aligns the corners' centres."""


VARIANTS: dict[str, Variant] = {
    "v2": Variant("omnidata_dpt_normal_v2.ckpt", "model.", 0.0, 1.0, rectified=True, aligned=True),
    "3dcc": Variant(
        "rgb2normal_omni_dpt_2d3daug.pth", "model.parallel_apply.module.", 0.5, 0.5, rectified=False, aligned=False
    ),
}
# Keys under which the published files store their weights, next to training metadata.
_CONTAINERS = ("state_dict", "('rgb', 'normal')")


# ------------------------------------------------------------------------------------ network
def network(variant: str) -> nn.Module:
    """The network of a variant, float32, with random weights; (B, 3, h, w) -> (B, 3, h, w), not yet clamped.

    h and w must be multiples of 32. Nothing is downloaded. Raises InputError for an unknown variant.
    """
    settings = VARIANTS[_known(variant)]
    midas = _package()
    with _PACKAGE, _without_download(midas.vit):
        made: Any = midas.dpt_depth.DPTDepthModel(
            backbone="vitb_rn50_384", num_channels=3, non_negative=settings.rectified
        )
    made.scratch.output_conv[1].align_corners = settings.aligned
    dpt: nn.Module = made
    return dpt


def _known(variant: str) -> str:
    if variant not in VARIANTS:
        raise InputError(f"variant: {variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
    return variant


def _package() -> SimpleNamespace:
    try:
        from omnidata_tools.torch.modules.midas import dpt_depth, vit
    except ImportError as error:
        raise MissingExtra(error.name or "omnidata-tools", "labelers") from None
    return SimpleNamespace(dpt_depth=dpt_depth, vit=vit)


@contextmanager
def _without_download(vit: Any) -> Iterator[None]:
    """Let the package create its backbone without ImageNet's weights.

    It always requests pretrained ones from timm, which costs a download of 400 MB and fails offline, only for
    them to be overwritten by the checkpoint. The name `timm` is replaced inside the package's own
    module, and only while the network is created; timm itself does not change.
    """
    theirs = vit.timm

    def create_model(name: str, pretrained: bool) -> nn.Module:
        # timm 1 deprecates the name that the package uses.
        known_as = {"vit_base_resnet50_384": "vit_base_r50_s16_384"}.get(name, name)
        made: nn.Module = theirs.create_model(known_as, pretrained=False)
        return made

    vit.timm = SimpleNamespace(create_model=create_model)
    try:
        yield
    finally:
        vit.timm = theirs


# ------------------------------------------------------------------------------------ loading
def load_network(weights: str | Path | None, variant: str | None = None) -> tuple[nn.Module, str]:
    """A network with a checkpoint's weights, frozen, on the CPU, and its variant's name.

    weights: a published file, the same as .safetensors, or a folder with one of them.
    variant: needed when the names have no prefix that identifies it; a wrong one is refused.
    Raises InputError when the file is missing, unreadable or of another network.
    """
    path = _find(weights, variant)
    variant, state = unwrap(read(path, _fix(), _stand_ins), path, variant)
    # Created without storage: drawing 123 million random weights takes longer than reading them.
    with torch.device("meta"):
        dpt = network(variant)
    check_shapes(path, shapes(state), shapes(dpt.state_dict()), "not the weights of Omnidata's DPT", _fix())
    dpt.load_state_dict(state, strict=True, assign=True)
    return dpt.requires_grad_(False).eval(), variant


def unwrap(loaded: Any, path: Path, variant: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """The variant of a file, and its weights, float32, by the network's own names.

    The variants' weights have equal names and shapes; only the prefix distinguishes them, and the wrong
    network would silently give wrong normals. Raises InputError when the variant is uncertain.
    """
    named = named_tensors(loaded, path, _CONTAINERS, _fix())
    variant = _variant_of(set(named), path, variant)
    prefix = VARIANTS[variant].prefix
    return variant, {name.removeprefix(prefix): tensor.float() for name, tensor in named.items()}


def _variant_of(names: set[str], path: Path, variant: str | None) -> str:
    # The longer prefix begins with the shorter one.
    for known in sorted(VARIANTS, key=lambda name: len(VARIANTS[name].prefix), reverse=True):
        if all(name.startswith(VARIANTS[known].prefix) for name in names):
            if variant not in (None, known):
                raise InputError(f"variant: {variant!r} given, but {path} contains {known!r}; omit the option")
            return known
    if variant is None:
        raise InputError(f"{path}: the names do not identify its variant; set variant to one of {', '.join(VARIANTS)}")
    return _known(variant)


def _find(weights: str | Path | None, variant: str | None) -> Path:
    chosen = VARIANTS if variant is None else {variant: VARIANTS[_known(variant)]}
    names = [name for settings in chosen.values() for name in _also_safetensors(settings.file)]
    path = find_file("omnidata", weights, names, _fix())
    present = {name.rpartition(".")[0] for name in names if (path.parent / name).is_file()}
    if path != Path(str(weights)) and len(present) > 1:
        raise InputError(f"{path.parent} contains several networks; set variant to one of {', '.join(VARIANTS)}")
    return path


def _also_safetensors(file: str) -> tuple[str, str]:
    return f"{file.rpartition('.')[0]}.safetensors", file


def _fix() -> str:
    return f"download {' or '.join(settings.file for settings in VARIANTS.values())} and give its path"


def _stand_ins(path: Path) -> list[Any]:
    """Replacements for the classes that v2's file mentions in addition to its weights.

    It was saved by PyTorch Lightning, which stores its callbacks. They are not needed; Lightning's classes
    become plain dicts, so that it need not be installed. Other classes that are no tensors are refused.
    """
    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format from before torch 1.6 cannot be listed; it is read nevertheless
        names = []
    return [Namespace, *((dict, name) for name in names if name.startswith(("pytorch_lightning.", "lightning.")))]


# ------------------------------------------------------------------------------------ labeler
class OmnidataLabeler:
    """Images (B, 3, H, W) in [0, 1], R G B -> {"normal": (B, 3, H, W)}, unit vectors right, up, toward the viewer.

    The short side is resized to `size` and the long one in proportion, to the nearest multiple of 32: a
    stretched image would have other slopes. The normals are resized to H and W and normalised again.
    """

    def __init__(
        self, dpt: nn.Module, variant: str, *, size: int = 384, dtype: str = "float32", batch_size: int = 8
    ) -> None:
        self.network: Any = dpt
        self.variant = VARIANTS[_known(variant)]
        self.size = size
        self.dtype = DTYPES[dtype]
        self.batch_size = batch_size
        self.device = next(dpt.parameters()).device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Normals have the images' height and width, and are on the images' device. Raises InputError."""
        check_images(images)
        labels = in_parts(images, self.batch_size, lambda part: self._label(part.to(self.device)))
        return {"normal": labels.to(images.device)}

    def _label(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        code = self.code(resize(images.float(), working_size(height, width, short=self.size)))
        return unit(resize(normals(code), (height, width)))

    @torch.no_grad()
    def code(self, images: Tensor) -> Tensor:
        """The published networks' raw output: images (B, 3, h, w), multiples of 32 -> colour codes in [0, 1]."""
        seen = (images - self.variant.mean) / self.variant.std
        return finite_maps(seen, self.dtype, self._code).float().clamp(0, 1)

    def _code(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        with _PACKAGE, autocast(self.device, dtype):
            try:
                code: Tensor = self.network(images)
            finally:  # they would stay in memory until the next pass
                self.network.pretrained.activations.clear()
        return code


def build(
    weights: str | Path | None,
    device: str = "cpu",
    *,
    variant: Literal["v2", "3dcc"] | None = None,
    size: int = 384,
    dtype: str = "float32",
    batch_size: int = 8,
) -> OmnidataLabeler:
    """The labeler `omnidata`.

    weights, variant: see `load_network`. size: the short side of the network's input,
    in pixels, a multiple of 32; both networks were trained at 384, DMP used 512.
    batch_size: images at a time, at least 1.
    Raises InputError for unknown options and for weights that do not fit.
    """
    check_options(dtype, batch_size)
    if size < MULTIPLE or size % MULTIPLE:
        raise InputError(f"size: {size} is not a multiple of {MULTIPLE}; the networks were trained at 384")
    dpt, found = load_network(weights, variant)
    return OmnidataLabeler(dpt.to(device), found, size=size, dtype=dtype, batch_size=batch_size)


# ----------------------------------------------------------------------------------- geometry
def working_size(height: int, width: int, *, short: int) -> tuple[int, int]:
    """Height and width of the network's input: the short side is `short`, the other the nearest multiple of 32."""
    scale = short / min(height, width)
    tall, wide = (max(short, MULTIPLE * int(side * scale / MULTIPLE + 0.5)) for side in (height, width))
    return tall, wide


def normals(code: Tensor) -> Tensor:
    """Colour codes (B, 3, h, w) in [0, 1] -> unit vectors right, up, toward the viewer (module docstring)."""
    return unit((2 * code - 1) * code.new_tensor([1, -1, -1]).view(3, 1, 1))


def unit(vectors: Tensor) -> Tensor:
    """(B, 3, h, w) scaled to length 1; one without direction becomes the direction to the viewer, the likeliest one."""
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    toward = vectors.new_tensor([0, 0, 1]).view(3, 1, 1)
    return torch.where(length > _SHORTEST, vectors / length.clamp(min=_SHORTEST), toward)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, antialiased as in PIL; (B, C, h, w) -> (B, C, *size). The same size is returned unchanged."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
