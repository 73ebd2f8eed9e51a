"""UperNet, the segmentation head of EVA-02's checkpoint, in plain torch (Xiao et al., arXiv:1807.10221).

Parameter names and shapes are those of the published heads (`UPerHead` and `FCNHead` of mmsegmentation
0.x), so that their weights load by name; mmsegmentation itself is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOL_SCALES = (1, 2, 3, 6)
"""Grid sizes to which the coarsest features are averaged."""


def resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, pixels as areas (corners not aligned), no smoothing: (B, C, h, w) -> (B, C, *size)."""
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False)


class ConvNormReLU(nn.Module):
    """Convolution without bias that keeps height and width, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(features)))


class UperNetHead(nn.Module):
    """Features of several scales to class logits at the finest of these scales.

    Pyramid pooling gives the coarsest level a view of the whole image; a feature pyramid passes
    it on to the finer levels, and all levels together are classified. Dropout, used by the published head
    in training, is the identity here: this package only predicts with it.
    """

    def __init__(self, inputs: Sequence[int], channels: int, classes: int) -> None:
        """inputs: channels of each level, finest first."""
        super().__init__()
        coarsest = inputs[-1]
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNormReLU(coarsest, channels, 1)) for scale in POOL_SCALES
        )
        self.bottleneck = ConvNormReLU(coarsest + len(POOL_SCALES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvNormReLU(level, channels, 1) for level in inputs[:-1])
        self.fpn_convs = nn.ModuleList(ConvNormReLU(channels, channels, 3) for _ in inputs[:-1])
        self.fpn_bottleneck = ConvNormReLU(len(inputs) * channels, channels, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first, (B, inputs[i], h_i, w_i) -> logits (B, classes, h_0, w_0)."""
        above = self._pooled(features[-1])
        coarse_to_fine = [above]
        for level in reversed(range(len(self.lateral_convs))):
            lateral = self.lateral_convs[level](features[level])
            above = lateral + resize(above, lateral.shape[2:])
            coarse_to_fine.append(self.fpn_convs[level](above))
        size = coarse_to_fine[-1].shape[2:]
        pyramid = torch.cat([resize(level, size) for level in reversed(coarse_to_fine)], dim=1)
        logits: Tensor = self.conv_seg(self.fpn_bottleneck(pyramid))
        return logits

    def _pooled(self, coarsest: Tensor) -> Tensor:
        """The coarsest features concatenated with their averages over grids of the image."""
        averages = [resize(pool(coarsest), coarsest.shape[2:]) for pool in self.psp_modules]
        pooled: Tensor = self.bottleneck(torch.cat([coarsest, *averages], dim=1))
        return pooled


class AuxiliaryHead(nn.Module):
    """The auxiliary training head: one convolution, then classes. Predictions do not need it."""

    def __init__(self, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.convs = nn.Sequential(ConvNormReLU(inputs, channels, 3))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) -> logits (B, classes, h, w)."""
        logits: Tensor = self.conv_seg(self.convs(features))
        return logits
