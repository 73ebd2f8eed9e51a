"""Counts over a split, gathered one sample at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.evaluation.colours import IGNORED
from dmp_core.evaluation.histogram import HalfHistogram
from dmp_core.report.data import SplitStatistics
from dmp_core.report.pictures import class_names


class StatisticsCollector:
    """Feed it every sample of a split once, then ask for `result`."""

    def __init__(self) -> None:
        self._images = self._failures = 0
        self._keywords: Counter[str] = Counter()
        self._families: Counter[str] = Counter()
        self._styles: Counter[str] = Counter()
        self._prompt_characters: list[int] = []
        self._class_pixels: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self._class_images: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self._depth = HalfHistogram()
        self._colour: NDArray[np.float64] = np.zeros(3)
        self._coloured = 0

    def update(
        self,
        prompt: str,
        keyword: str = "",
        *,
        rgb: NDArray[np.uint8] | None = None,
        segmentation: NDArray[Any] | None = None,
        depth: NDArray[Any] | None = None,
        family: str = "",
        style: str = "",
    ) -> None:
        """Count one sample. rgb (H, W, 3) uint8; segmentation (H, W) ids; depth (H, W) metres."""
        self._images += 1
        if prompt:
            self._prompt_characters.append(len(prompt))
        for counter, name in ((self._keywords, keyword), (self._families, family), (self._styles, style)):
            if name:
                counter[name] += 1
        if rgb is not None:
            self._colour += np.asarray(rgb).reshape(-1, 3).mean(axis=0) / 255
            self._coloured += 1
        if segmentation is not None:
            counts = np.bincount(np.asarray(segmentation).ravel().astype(np.int64), minlength=256)[:256]
            self._class_pixels += counts
            self._class_images += counts > 0
        if depth is not None:
            self._depth.update(depth)

    def drop(self, count: int = 1) -> None:
        """Count samples that were lost on the way."""
        self._failures += count

    def result(self) -> SplitStatistics:
        depths = tuple(self._depth.quantile(share) for share in (0.05, 0.5, 0.95))
        shown = [c for c in np.argsort(-self._class_pixels, kind="stable") if self._class_pixels[c] and c != IGNORED]
        pixels = max(1, int(self._class_pixels[:IGNORED].sum()))
        return SplitStatistics(
            images=self._images,
            keywords=dict(self._keywords.most_common()),
            prompt_characters=tuple(self._prompt_characters),
            class_pixels={_name(c): float(self._class_pixels[c] / pixels) for c in shown},
            class_images={_name(c): int(self._class_images[c]) for c in shown},
            depth_metres=None if np.isnan(depths[0]) else (depths[0], depths[1], depths[2]),
            families=dict(self._families.most_common()),
            styles=dict(self._styles.most_common()),
            mean_rgb=self._mean_colour(),
            failures=self._failures,
        )

    def _mean_colour(self) -> tuple[float, float, float] | None:
        if not self._coloured:
            return None
        red, green, blue = (self._colour / self._coloured).tolist()
        return red, green, blue


def _name(class_id: int) -> str:
    names = class_names()
    return names[class_id] if class_id < len(names) else f"class {class_id}"
