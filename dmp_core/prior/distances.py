"""Distances between two images, between an image and its nearest neighbours, and between two sets of images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dmp_core.prior.judge import Images, Judge, batches

Features = NDArray[np.float64]
"""(N, F)."""


def psnr(images: Images, others: Images) -> float:
    """Mean peak signal-to-noise ratio of image pairs, dB; 120 where they are equal."""
    error = (images.astype(np.float64) - others) / 255
    return float((-10 * np.log10((error**2).mean(axis=(1, 2, 3)) + 1e-12)).mean())


def ssim(images: Images, others: Images) -> float:
    """Mean structural similarity (Wang et al. 2004) of image pairs; 1 where they are equal."""
    first, second = (torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255 for part in (images, others))
    value = structural_similarity_index_measure(first, second, data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)


@torch.no_grad()
def perceptual(judge: Judge, images: Images, others: Images) -> float:
    """Mean distance of image pairs in the judge's layers; 0 where they are equal.

    As LPIPS (Zhang et al. 2018), without its learnt weights: at every position of every layer the channels are scaled
    to unit length; squared differences, the mean over positions, the sum over layers.
    """
    total = 0.0
    for first, second in zip(batches(images), batches(others), strict=True):
        for a, b in zip(judge.maps(first), judge.maps(second), strict=True):
            total += float((F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2)).sum())
    return total / len(images)


def frechet(features: Features, others: Features) -> float:
    """Fréchet distance (squared, as in FID) of the two normal distributions with the sets' means and covariances.

    |μ - ν|² + tr(A + B - 2 (A B)^½) for covariances A and B (Dowson and Landau 1982). Biased upwards, more for
    smaller sets: compare only values of equal counts.
    """
    shift = features.mean(0) - others.mean(0)
    first, second = np.cov(features.T), np.cov(others.T)
    values, axes = np.linalg.eigh(first)
    root = (axes * np.sqrt(values.clip(0))) @ axes.T
    # A B and A^½ B A^½ have the same eigenvalues; the latter is symmetric, so they are real.
    overlap = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * overlap)


def nearest(features: Features, references: Features, count: int = 1) -> tuple[Features, NDArray[np.int64]]:
    """Euclidean distances to the `count` nearest references, and their indices; (N, count) each, nearest first."""
    exact = "donot_use_mm_for_euclid_dist"  # matrix products lose the small distances, which matter here
    distances = torch.cdist(torch.from_numpy(features), torch.from_numpy(references), compute_mode=exact)
    values, indices = distances.topk(count, largest=False)
    return values.numpy(), indices.numpy()


def nearness(features: Features, held_out: Features, training: Features) -> float:
    """Median distance to the nearest training image, over that of held-out images; 0 for copies, 1 for new ones."""
    return float(np.median(nearest(features, training)[0]) / np.median(nearest(held_out, training)[0]))
