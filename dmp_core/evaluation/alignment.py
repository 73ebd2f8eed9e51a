"""Scale and shift alignment of depth maps, for predictors without metric scale."""

from __future__ import annotations

import torch
from torch import Tensor


def align_affine(pred: Tensor, true: Tensor) -> Tensor:
    """The scale and shift of each depth map that fit the truth best in least squares (Marigold's protocol).

    pred, true: (B, H, W) metres. Returns (B, H, W), at least a millimetre everywhere, so that ratios exist.
    """
    valid = (torch.isfinite(true) & (true > 0)).to(pred.dtype)
    count = valid.sum((1, 2), keepdim=True).clamp(min=1)
    truth = torch.where(valid > 0, true, torch.zeros_like(true))
    mean_p = (pred * valid).sum((1, 2), keepdim=True) / count
    mean_t = truth.sum((1, 2), keepdim=True) / count
    spread = ((pred - mean_p) ** 2 * valid).sum((1, 2), keepdim=True)
    together = ((pred - mean_p) * (truth - mean_t) * valid).sum((1, 2), keepdim=True)
    scale = torch.where(spread > 1e-12, together / spread.clamp(min=1e-12), torch.zeros_like(spread))
    return (scale * (pred - mean_p) + mean_t).clamp(min=1e-3)
