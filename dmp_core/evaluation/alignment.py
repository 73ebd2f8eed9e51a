"""Scale and shift alignment of depth maps, for predictors without metric scale."""

from __future__ import annotations

import torch
from torch import Tensor


def align_affine(pred: Tensor, true: Tensor) -> Tensor:
    """Scale and shift each depth map to fit the truth best in least squares (Marigold's protocol).

    pred, true: (B, H, W) metres. Only pixels that are both predicted and labelled count. Returns (B, H, W), at least
    a millimetre everywhere, so that ratios exist; NaN where nothing is predicted.
    """
    predicted = torch.isfinite(pred)
    known = torch.isfinite(true) & (true > 0) & predicted
    nothing = torch.zeros_like(pred)
    # Selected, not multiplied by a mask: values outside may be inf or NaN.
    truth = torch.where(known, true, nothing)
    count = known.sum((1, 2), keepdim=True).clamp(min=1)
    mean_p = torch.where(known, pred, nothing).sum((1, 2), keepdim=True) / count
    mean_t = truth.sum((1, 2), keepdim=True) / count
    off_p, off_t = torch.where(known, pred - mean_p, nothing), torch.where(known, truth - mean_t, nothing)
    spread = (off_p**2).sum((1, 2), keepdim=True)
    together = (off_p * off_t).sum((1, 2), keepdim=True)
    scale = torch.where(spread > 1e-12, together / spread.clamp(min=1e-12), torch.zeros_like(spread))
    return (scale * (pred - mean_p) + mean_t).clamp(min=1e-3).where(predicted, torch.nan)
