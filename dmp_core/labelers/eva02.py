"""EVA-02-L with UperNet: semantic segmentation in ADE20K's 150 classes (Fang et al., arXiv:2303.11331).

The backbone is timm's `Eva`, the head is `upernet`; together they load the published checkpoint
`eva02_L_ade_seg_upernet_sz512.pth`. Inference is that of the published configuration: the short side is
resized to 512, windows of 512 are labelled every 341 pixels; where they overlap, logits are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmp_core.errors import InputError, MissingExtra
from dmp_core.labelers.common import DTYPES, autocast, check_images, check_options, finite_maps, in_parts
from dmp_core.labelers.upernet import AuxiliaryHead, UperNetHead, resize
from dmp_core.labelers.weights import check_shapes, find_file, named_tensors, read, shapes

try:
    from timm.models.eva import Eva
except ImportError as error:
    raise MissingExtra(error.name or "timm", "labelers") from None

CHECKPOINT = "eva02_L_ade_seg_upernet_sz512"
"""The published file's name, without its suffix."""
_FIX = f"download {CHECKPOINT}.pth (EVA-02, ADE20K segmentation) and give its path"
# Mean and deviation of the training images, in 8-bit units, R G B.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Classes are enlarged in groups: all 150 of a 12-megapixel photo would take 7 GB.
_CLASS_GROUP = 16


@dataclass(frozen=True)
class Eva02Config:
    """Sizes of the network; the defaults are those of the published checkpoint."""

    classes: int = 150
    window: int = 512
    """Height and width of a window, in pixels."""
    stride: int = 341
    """From one window to the next, in pixels."""
    patch: int = 16
    width: int = 1024
    depth: int = 24
    heads: int = 16
    taps: tuple[int, ...] = (7, 11, 15, 23)
    """Blocks whose outputs become the four levels of features, finest first."""
    head_channels: int = 1024
    auxiliary_channels: int = 256


# ------------------------------------------------------------------------------------ network
class Eva02Backbone(nn.Module):
    """A plain vision transformer whose single scale of features is resampled to four."""

    def __init__(self, config: Eva02Config) -> None:
        super().__init__()
        width = config.width
        self.taps = list(config.taps)
        self.trunk = _trunk(config)
        self.fpn1 = nn.Sequential(_doubled(width), nn.BatchNorm2d(width), nn.GELU(), _doubled(width))
        self.fpn2 = nn.Sequential(_doubled(width))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised (B, 3, window, window) -> (B, width, s, s) with s = window / 4, / 8, / 16 and / 32."""
        levels = self.trunk.forward_intermediates(images, indices=self.taps, intermediates_only=True)
        return [step(level) for step, level in zip((self.fpn1, self.fpn2, self.fpn3, self.fpn4), levels, strict=True)]


class Eva02Segmenter(nn.Module):
    """Backbone and head. With `auxiliary` it also contains the second head of training, which `forward` ignores."""

    def __init__(self, config: Eva02Config, auxiliary: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = Eva02Backbone(config)
        self.decode_head = UperNetHead([config.width] * 4, config.head_channels, config.classes)
        if auxiliary:
            self.auxiliary_head = AuxiliaryHead(config.width, config.auxiliary_channels, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, window, window) -> logits (B, classes, window, window), float32."""
        return resize(self.decode_head(self.backbone(images)).float(), images.shape[2:])

    def slide(self, images: Tensor) -> Tensor:
        """The same for images of any size from one window up: logits, averaged over the windows.

        Windows at the right and at the bottom are moved back into the image, as in mmsegmentation.
        """
        window, (height, width) = self.config.window, images.shape[2:]
        total = images.new_zeros(len(images), self.config.classes, height, width, dtype=torch.float32)
        visits = images.new_zeros(1, 1, height, width, dtype=torch.float32)
        for top in _starts(height, window, self.config.stride):
            for left in _starts(width, window, self.config.stride):
                area = (..., slice(top, top + window), slice(left, left + window))
                total[area] += self(images[area])
                visits[area] += 1
        return total / visits


def _trunk(config: Eva02Config) -> Eva:
    """timm's network without the layers after its blocks."""
    trunk = Eva(
        img_size=config.window,
        patch_size=config.patch,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=4 * 2 / 3,
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        use_rot_pos_emb=True,
        # Rotary frequencies are those of the pretraining's 16 × 16 patches, stretched over this grid.
        ref_feat_shape=(16, 16),
        num_classes=0,
        global_pool="",
    )
    trunk.norm = nn.Identity()
    return trunk


def _doubled(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def _starts(length: int, window: int, stride: int) -> Iterator[int]:
    """Starts of the windows: every `stride`, and one aligned with the end."""
    yield from range(0, length - window, stride)
    yield length - window


# -------------------------------------------------------------------------------------- names
_PREFIX = ("backbone.", "backbone.trunk.")
_RENAMES = (
    (".attn.q_bias", ".attn.q_proj.bias"),
    (".attn.v_bias", ".attn.v_proj.bias"),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
    (".mlp.ffn_ln.", ".mlp.norm."),
)
"""(the checkpoint's, timm's) parts of parameter names."""


def to_timm(name: str) -> str:
    """The checkpoint's name of a parameter -> its name in `Eva02Segmenter`, with timm's in `backbone.trunk`."""
    if not name.startswith("backbone.") or name.startswith("backbone.fpn"):
        return name
    return _replaced(name, (_PREFIX, *_RENAMES))


def from_timm(name: str) -> str:
    """The inverse of `to_timm`."""
    return _replaced(name, tuple((timm, published) for published, timm in (_PREFIX, *_RENAMES)))


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


# ------------------------------------------------------------------------------------ loading
def load_network(weights: str | Path | None, config: Eva02Config | None = None) -> Eva02Segmenter:
    """The network with a checkpoint's weights, float32 on the CPU, frozen and in evaluation mode.

    weights: a .safetensors or .pth file with the published names, or a folder that contains it. The auxiliary
    head's weights and the rotary tables may be missing; everything else is required, and nothing more is accepted.
    Raises InputError when the file is missing, unreadable or of another network.
    """
    config = config or Eva02Config()
    path = find_file("eva02", weights, [f"{CHECKPOINT}{ending}" for ending in (".safetensors", ".pth")], _FIX)
    stored = named_tensors(read(path, _FIX, _plain_numbers), path, ["state_dict"], _FIX)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    tables = {name: state.pop(name) for name in list(state) if ".rope." in name}
    # Created without storage, since drawing 440 million random weights takes longer than reading them.
    with torch.device("meta"):
        network = Eva02Segmenter(config, auxiliary=any(name.startswith("auxiliary_head.") for name in state))
    wanted = {from_timm(name): shape for name, shape in shapes(network.state_dict()).items()}
    check_shapes(path, shapes(state), wanted, f"not the weights of {CHECKPOINT}", _FIX)
    network.load_state_dict({to_timm(name): tensor for name, tensor in state.items()}, strict=True, assign=True)
    network.backbone.trunk.rope = _trunk(replace(config, depth=1)).rope
    _check_tables(path, tables, network)
    return network.requires_grad_(False).eval()


def rotary_tables(network: Eva02Segmenter) -> dict[str, Tensor]:
    """Sines and cosines of the patches' positions by the checkpoint's names: (patches, width / heads) each."""
    rope: Any = network.backbone.trunk.rope
    sine, cosine = rope.get_embed().chunk(2, dim=-1)
    return {"freqs_sin": sine, "freqs_cos": cosine}


def _plain_numbers(path: Path) -> list[Any]:
    """NumPy scalars count as data: mmsegmentation stores its best score as one."""
    scalar = np.float64(0).__reduce__()[0]
    # NumPy 2 moved the function; checkpoints of NumPy 1 refer to its old place.
    numbers: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    return [*numbers, *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64))]


def _check_tables(path: Path, tables: Mapping[str, Tensor], network: Eva02Segmenter) -> None:
    """Check the stored rotary tables, which are constants: other values mean another resolution or pretraining."""
    own = rotary_tables(network)
    for name, table in tables.items():
        expected = own.get(name.rpartition(".")[2])
        # The slack is half precision's error of a sine.
        if expected is None or table.shape != expected.shape or not torch.allclose(table, expected, atol=1e-3):
            raise InputError(f"{path}: {name} is for other positions than those of {CHECKPOINT}; give its weights")


# ------------------------------------------------------------------------------------ labeler
class Eva02Labeler:
    """Images (B, 3, H, W) in [0, 1], R G B -> {"segmentation": (B, H, W) uint8}, ids 0 … 149 in ADE20K's order."""

    def __init__(self, network: Eva02Segmenter, dtype: str = "float32", batch_size: int = 4) -> None:
        self.network = network
        self.dtype = DTYPES[dtype]
        self.batch_size = batch_size
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Labels have the images' height and width, on the images' device. Raises InputError on other units."""
        check_images(images)
        labels = in_parts(images, self.batch_size, lambda part: self._label(part.to(self.device)))
        return {"segmentation": labels.to(images.device)}

    def _label(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        # No antialiasing, since the published pipeline resizes with plain bilinear sampling.
        resized = resize(images.float(), working_size(height, width, short=self.network.config.window))
        return class_map(finite_maps(normalised(resized), self.dtype, self._logits), (height, width))

    def _logits(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        with autocast(self.device, dtype):
            return self.network.slide(images)


def build(
    weights: str | Path | None,
    device: str = "cpu",
    *,
    dtype: str = "float32",
    batch_size: int = 4,
    config: Eva02Config | None = None,
) -> Eva02Labeler:
    """The labeler `eva02`.

    weights: see `load_network`. batch_size: images at a time, at least 1; each needs about 1.1 GB at 512².
    Raises InputError for unknown options and for weights that do not fit.
    """
    check_options(dtype, batch_size)
    return Eva02Labeler(load_network(weights, config).to(device), dtype, batch_size)


def working_size(height: int, width: int, *, short: int) -> tuple[int, int]:
    """The size at which an image is labelled: its short side becomes `short`, its proportions are kept.

    The published configuration also keeps the long side below 2048, but a panorama that this would affect
    (longer than 4 : 1) would then be lower than one window, which the network cannot process.
    """
    scale = short / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def normalised(images: Tensor) -> Tensor:
    """[0, 1] to zero mean and unit variance per channel: (B, 3, H, W)."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (images * 255 - mean) / std


def class_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class (B, *size), uint8, from logits (B, classes, h, w) enlarged or shrunk to `size`."""
    best = logits.new_full((len(logits), *size), -torch.inf)
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for first in range(0, logits.shape[1], _CLASS_GROUP):
        values, group = resize(logits[:, first : first + _CLASS_GROUP], size).max(dim=1)
        labels = torch.where(values > best, (group + first).to(torch.uint8), labels)
        best = torch.maximum(values, best)
    return labels
