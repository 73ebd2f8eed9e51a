"""PIE-Net: an image as albedo × shading (Das, Karaoglu and Gevers, CVPR 2022).

Two encoders read the image and its cross colour ratios, which do not change with the light. Three
decoders follow: one finds edges of reflectance and of illumination, one predicts a first albedo and
shading under the guidance of these edges, and one refines both. Every decoder has two branches that
read each other's features at each scale.

`PIENet` is the network, with the parameter names of the published checkpoint; `build` builds the labeler.
Weights: `real_world_model.t7`, see `SOURCE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmp_core.errors import InputError
from dmp_core.labelers.common import DTYPES, autocast, check_images, check_options, check_shape, finite_maps
from dmp_core.labelers.weights import check_shapes, find_file, named_tensors, read, shapes

SOURCE = "https://uvaauas.figshare.com/articles/conference_contribution/real_world_model_t7/19940000"
"""Where the authors publish the weights."""
FILES = ("real_world_model.safetensors", "real_world_model.t7")
"""Searched in this order when `weights` is a folder."""
_FIX = f"download {FILES[-1]} from {SOURCE} and give its path"
STRIDE = 16
"""Height and width must be multiples of this: four halvings, each undone exactly."""

_EPSILON = 1e-7
_EDGE_SHARE = 0.1
# Multiples of the width: channels of the encoders from fine to coarse, and of the decoders from coarse to fine.
_ENCODER = (1, 2, 4, 8, 8)
_DECODER = (8, 8, 4, 2)
_CALIBRATED = 16


# -------------------------------------------------------------------------------------- parts
def _convolution(before: int, after: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2)
    return [layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _upsampling(before: int, after: int) -> nn.Sequential:
    """Twice the height and width."""
    return nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _add_encoder(module: nn.Module, name: str, channels: int, width: int) -> None:
    """Register `{name}0` … `{name}4`; all but the first halve height and width."""
    before = channels
    for level, factor in enumerate(_ENCODER):
        middle, after = (before if level else width), factor * width
        first = _convolution(before, middle, stride=2 if level else 1)
        module.add_module(f"{name}{level}", nn.Sequential(*first, *_convolution(middle, after)))
        before = after


def _encode(module: nn.Module, name: str, images: Tensor) -> list[Tensor]:
    """Features from fine to coarse: (B, C_i, H / 2^i, W / 2^i)."""
    features: list[Tensor] = []
    for level in range(len(_ENCODER)):
        features.append(module.get_submodule(f"{name}{level}")(features[-1] if features else images))
    return features


def _attend(features: Tensor, guide: Tensor) -> Tensor:
    """Features multiplied by a factor in (1, 2), larger where the guide is strong."""
    return features * (1 + torch.sigmoid(guide))


class CrossRatio(nn.Module):
    """Cross colour ratios: per pair of channels, how their ratio changes from pixel to pixel.

    The light's colour and strength cancel, the surface's do not.
    """

    filter: Tensor
    filter2: Tensor

    def __init__(self) -> None:
        super().__init__()
        falling = torch.tensor([[[[0.0, 1, 0], [1, 0, -1], [0, -1, 0]]]])
        self.register_buffer("filter", falling)
        self.register_buffer("filter2", -falling)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to the ratios red/green, green/blue, red/blue in [1/e, e]; 0 where `images` is 0."""
        # Half precision has no 1e-7, and the differences of logarithms need their digits.
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            weight = self.filter.float().new_zeros(3, 3, 3, 3)
            for ratio, (over, under) in enumerate(((0, 1), (1, 2), (0, 2))):
                weight[ratio, over], weight[ratio, under] = self.filter[0, 0], self.filter2[0, 0]
            change = F.conv2d(torch.log(images + _EPSILON), weight, padding=1)
            ratios = change.clamp(-1, 1).exp() - _EPSILON
        return ratios.masked_fill(images == 0, 0)


class Features(NamedTuple):
    """The encoders' outputs, from fine to coarse, and the cross ratios (B, 3, H, W)."""

    image: list[Tensor]
    cross: list[Tensor]
    cross_image: Tensor


class _Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        _add_encoder(self, "conv", 3, width)
        _add_encoder(self, "cross", 3, width)
        self.crossRatio = CrossRatio()

    def forward(self, images: Tensor) -> Features:
        cross_image = self.crossRatio(images)
        return Features(_encode(self, "conv", images), _encode(self, "cross", cross_image), cross_image)


# ----------------------------------------------------------------------------------- decoders
class _PairedDecoder(nn.Module):
    """Two branches, of reflectance and of light, that read each other's features at every scale.

    `{name}{level}.{branch}` double the resolution, `{output}.{branch}` have `heads` output channels;
    `skips`: number of encoders whose features are concatenated at each scale.
    """

    def __init__(self, name: str, output: str, width: int, bottom: int, skips: int, heads: Sequence[int]) -> None:
        super().__init__()
        self.level_names = [f"{name}{level}" for level in range(len(_DECODER))]
        self.output_name = output
        before = bottom
        for level, factor, joined in zip(self.level_names, _DECODER, _ENCODER[-2::-1], strict=True):
            self.add_module(level, nn.ModuleList(_upsampling(before, factor * width) for _ in heads))
            before = (2 * factor + skips * joined) * width
        outputs = [nn.Sequential(*_convolution(before, width), *_convolution(width, head)) for head in heads]
        self.add_module(output, nn.ModuleList(outputs))

    def decode(
        self, bottom: Tensor, skips: Sequence[list[Tensor]], guides: Sequence[list[Tensor]] | None = None
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """(both branches' outputs, both branches' features at each scale), from coarse to fine.

        skips: per scale from coarse to fine, concatenated features; guides: per scale, guides of both branches.
        """
        joined, levels = bottom, []
        for index, level in enumerate(self.level_names):
            pair = self._both(level, joined)
            if guides is not None:
                pair = [_attend(*both) for both in zip(pair, guides[index], strict=True)]
            levels.append(pair)
            joined = torch.cat([*pair, *skips[index]], 1)
        return self._both(self.output_name, joined), levels

    def _both(self, name: str, features: Tensor) -> list[Tensor]:
        return [branch(features) for branch in self.get_submodule(name).children()]


class Edges(NamedTuple):
    """Edges (B, 3, ·, ·) at a quarter, half and full size, and the decoder's features, which guide the next decoder."""

    reflectance: list[Tensor]
    light: list[Tensor]
    levels: list[list[Tensor]]


class _EdgeDecoder(_PairedDecoder):
    def __init__(self, width: int, batch_independent: bool) -> None:
        super().__init__("edge_deconvs", "edge_output", width, 2 * _ENCODER[-1] * width, skips=2, heads=(3, 3))
        self.batch_independent = batch_independent
        # The published network calls neither the third head nor any of the light branch's; the file contains them all.
        for name in ("edge_side_output", "illum_edge_side_output"):
            for number, factor in enumerate(_DECODER[1:], start=1):
                self.add_module(f"{name}_{number}", nn.Sequential(*_convolution(factor * width, 3)))

    def forward(self, features: Features) -> Edges:
        bottom = torch.cat([features.image[-1], features.cross[-1]], 1)
        skips = [list(pair) for pair in zip(features.image[-2::-1], features.cross[-2::-1], strict=True)]
        outputs, levels = self.decode(bottom, skips)
        sides = [[self.get_submodule(f"edge_side_output_{n}")(branch) for branch in levels[n]] for n in (1, 2)]
        reflectance, light = ([*branch] for branch in zip(*sides, outputs, strict=True))
        return Edges([self._only_strong(edges) for edges in reflectance], light, levels)

    def _only_strong(self, edges: Tensor) -> Tensor:
        """Clamped to 1; pixels whose mean over the channels is at most a tenth of the largest become 0.

        The largest in the image, or, as published, in the whole batch.
        """
        edges = edges.clamp(0, 1)
        mean = edges.float().mean(1, keepdim=True)
        largest = mean.amax((1, 2, 3), keepdim=True) if self.batch_independent else mean.max()
        # Without any edge this is 0 / 0, and NaN is not larger: the edges stay 0.
        return edges * (mean / largest > _EDGE_SHARE)


class _FirstDecoder(_PairedDecoder):
    """A first albedo and shading, guided by the edges."""

    def __init__(self, width: int) -> None:
        super().__init__("unrefined_deconvs", "unrefined_output", width, _ENCODER[-1] * width, skips=1, heads=(3, 1))

    def forward(self, features: Features, edges: Edges) -> list[Tensor]:
        skips = [[skip] for skip in features.image[-2::-1]]
        (albedo, shading), _ = self.decode(features.image[-1], skips, edges.levels)
        light = edges.light[-1].mean(1, keepdim=True)
        return [_attend(albedo, edges.reflectance[-1]), _attend(shading, light)]


class _Refiner(_PairedDecoder):
    """Albedo and shading from the first ones and the edges, encoded once more."""

    def __init__(self, width: int) -> None:
        super().__init__("linked_deconvs", "linked_output", width, _ENCODER[-1] * width, skips=3, heads=(3, 1))
        _add_encoder(self, "conv", 2 * _CALIBRATED, width)
        self.alb_recalibrator = _recalibrator(3 + 3)
        self.shd_recalibrator = _recalibrator(3 + 1)

    def forward(self, features: Features, edges: Edges, first: Sequence[Tensor]) -> list[Tensor]:
        albedo = self.alb_recalibrator(torch.cat([edges.reflectance[-1], first[0]], 1))
        shading = self.shd_recalibrator(torch.cat([edges.light[-1], first[1]], 1))
        own = _encode(self, "conv", torch.cat([albedo, shading], 1))
        guides = zip(features.image, features.cross, strict=True)
        skips = [[value, *(_attend(value, guide) for guide in pair)] for value, pair in zip(own, guides, strict=True)]
        outputs, _ = self.decode(own[-1], skips[-2::-1])
        return outputs


def _recalibrator(channels: int) -> nn.Sequential:
    half = _CALIBRATED // 2
    return nn.Sequential(*_convolution(channels, half, kernel=1), *_convolution(half, _CALIBRATED, kernel=1))


# ------------------------------------------------------------------------------------ network
class PIENet(nn.Module):
    """The network, 204 million parameters at the published width, in evaluation mode.

    batch_independent: weak edges are removed relative to the image's own strongest edge. False
    (dmp_compat): relative to the strongest of the batch, as published; an image's result then depends
    on its neighbours.
    width: channels at full size; the published weights have 64.
    """

    def __init__(self, batch_independent: bool = True, width: int = 64) -> None:
        super().__init__()
        self.imgEncoder = _Encoder(width)
        self.edgeDecoder = _EdgeDecoder(width, batch_independent)
        self.unrefinedDecoder = _FirstDecoder(width)
        self.refinerNet = _Refiner(width)
        # Batch statistics would make an image depend on its batch; here the network only predicts.
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1], H and W multiples of 16, to the outputs under their published names.

        `reflectance` (B, 3, H, W), `shading` (B, 1, H, W) and their product `recon`; the same before
        refinement, `unrefined_reflec` and `unrefined_shd`; edges `reflec_edge` and `illum_edge`
        (B, 3, H, W), also at half (`…_128`) and quarter size (`…_64`); the cross ratios `cross_img`.
        All are at least 0, only the clamped reflectance edges and the ratios have an upper bound.
        Raises InputError on another shape.
        """
        check_shape(images)
        if images.shape[2] % STRIDE or images.shape[3] % STRIDE:
            raise InputError(
                f"images: height and width must be multiples of {STRIDE}, found {tuple(images.shape[2:])}; "
                f"the labeler of `build` pads them"
            )
        features = self.imgEncoder(images)
        edges = self.edgeDecoder(features)
        first = self.unrefinedDecoder(features, edges)
        reflectance, shading = self.refinerNet(features, edges, first)
        sizes = ("edge_64", "edge_128", "edge")
        return {
            **{f"reflec_{size}": edge for size, edge in zip(sizes, edges.reflectance, strict=True)},
            **{f"illum_{size}": edge for size, edge in zip(sizes, edges.light, strict=True)},
            "unrefined_reflec": first[0],
            "unrefined_shd": first[1],
            "reflectance": reflectance,
            "shading": shading,
            "recon": reflectance * shading,
            "cross_img": features.cross_image,
        }


# ------------------------------------------------------------------------------------ labeler
class PIENetLabeler:
    """Albedo and shading of images of any size.

    network: moved to `device`. dtype: of the convolutions (autocast); labels are always float32.
    size: the longer side of the network's input, to which larger images are shrunk; None keeps every size,
    as DMP did. Heights and widths are then padded to multiples of 16, at the right and below, by repeating
    the last pixels, and the labels are cropped or resized to the image's size.
    """

    def __init__(
        self, network: PIENet, device: str | torch.device = "cpu", *, dtype: str = "float32", size: int | None = None
    ) -> None:
        check_options(dtype)
        if size is not None and size < STRIDE:
            raise InputError(f"size: {size} is below the {STRIDE} pixels that the network needs; omit it")
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.dtype, self.size = DTYPES[dtype], size
        self.batch_independent = network.edgeDecoder.batch_independent

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float in [0, 1] to `albedo` (B, 3, H, W) and `shading` (B, H, W), float32 in [0, 1].

        Relative, not physical: each is stretched to [0, 1] per image, `stretch`. Results are on the
        images' device. Raises InputError when shape, type or range are wrong.
        """
        check_images(images)
        seen = self._shrink(images.to(self.device, torch.float32))
        cut = finite_maps(seen, self.dtype, self._predict)
        if seen.shape != images.shape:
            cut = F.interpolate(cut, images.shape[2:], mode="bilinear", antialias=True)
        albedo, shading = stretch(cut[:, :3]), stretch(cut[:, 3:])
        return {"albedo": albedo.to(images.device), "shading": shading[:, 0].to(images.device)}

    def _predict(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Albedo and shading, (B, 3 + 1, H, W)."""
        height, width = images.shape[2:]
        with autocast(self.device, dtype):
            outputs = self.network(pad(images))
        return torch.cat([outputs["reflectance"], outputs["shading"]], 1)[..., :height, :width].float()

    def _shrink(self, images: Tensor) -> Tensor:
        longer = max(images.shape[2:])
        if self.size is None or longer <= self.size:
            return images
        size = [max(1, round(side * self.size / longer)) for side in images.shape[2:]]
        return F.interpolate(images, size, mode="bilinear", antialias=True)


def pad(images: Tensor) -> Tensor:
    """Height and width up to multiples of `STRIDE`, at the right and below; the last pixels repeat."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


def stretch(maps: Tensor) -> Tensor:
    """(B, C, H, W) to [0, 1]: per image, all channels together, from the smallest value to the largest.

    As DMP stored its labels. A constant map becomes 0, where the published code divides by zero.
    """
    least, largest = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    span = largest - least
    return (maps - least) / torch.where(span > 0, span, 1)


def build(
    weights: str | Path | None,
    device: str = "cpu",
    *,
    batch_independent: bool = True,
    dtype: str = "float32",
    size: int | None = None,
) -> PIENetLabeler:
    """The labeler with published weights.

    weights: the authors' `real_world_model.t7`, its `model` part as .safetensors, or a folder with either.
    batch_independent: see `PIENet`; dtype ("float32", "float16", "bfloat16") and size: see `PIENetLabeler`.
    Raises InputError when the file is missing, unreadable or of another network.
    """
    file = find_file("pienet", weights, FILES, _FIX)
    state = named_tensors(read(file, _FIX), file, ["model"], _FIX)
    with torch.device("meta"):  # drawing 204 million random weights takes longer than reading them
        network = PIENet(batch_independent)
    check_shapes(file, shapes(state), shapes(network.state_dict()), "weights of another network", _FIX)
    network.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}, assign=True
    )
    return PIENetLabeler(network, device, dtype=dtype, size=size)
