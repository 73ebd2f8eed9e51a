"""Counts over a split, collected sample by sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.evaluation.histogram import HalfHistogram
from dmp_core.modalities import Modality, built_in
from dmp_core.modalities.classes import ClassMap
from dmp_core.modalities.depth import Depth
from dmp_core.report.data import SplitStatistics


def entropy_bits(counts: Iterable[int]) -> float:
    """Shannon entropy of the shares, in bits: log2(n) for n equally frequent words, 0 for one word or none."""
    known = np.array([count for count in counts if count], dtype=np.float64)
    shares = known / known.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


class StatisticsCollector:
    """Call `update` once for every sample of a split, then `result`.

    modalities: those that samples may have labels of, the built-in ones by default. Classes are counted for every
    class map; metres for the first modality with depth.
    """

    def __init__(self, modalities: Sequence[Modality] | None = None) -> None:
        modalities = built_in() if modalities is None else modalities
        self._images = self._failures = 0
        self._keywords: Counter[str] = Counter()
        self._families: Counter[str] = Counter()
        self._styles: Counter[str] = Counter()
        self._traits: dict[str, Counter[str]] = {}
        self._prompt_characters: list[int] = []
        self._classes = [_ClassCounts(modality) for modality in modalities if isinstance(modality, ClassMap)]
        self._depth = next((modality.name for modality in modalities if isinstance(modality, Depth)), None)
        self._metres = HalfHistogram()
        self._colour: NDArray[np.float64] = np.zeros(3)
        self._coloured = 0

    def update(
        self,
        prompt: str,
        keyword: str = "",
        *,
        rgb: NDArray[np.uint8] | None = None,
        labels: Mapping[str, NDArray[Any]] | None = None,
        family: str = "",
        style: str = "",
        traits: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Count one sample. rgb: (H, W, 3) uint8. labels: by modality name. traits: the words of each in the prompt."""
        self._images += 1
        if prompt:
            self._prompt_characters.append(len(prompt))
        for counter, name in ((self._keywords, keyword), (self._families, family), (self._styles, style)):
            if name:
                counter[name] += 1
        for trait, words in (traits or {}).items():
            self._traits.setdefault(trait, Counter()).update(words)
        if rgb is not None:
            self._colour += np.asarray(rgb).reshape(-1, 3).mean(axis=0) / 255
            self._coloured += 1
        labels = labels or {}
        for classes in self._classes:
            if classes.modality.name in labels:
                classes.update(labels[classes.modality.name])
        if self._depth is not None and self._depth in labels:
            self._metres.update(labels[self._depth])

    def drop(self, count: int = 1) -> None:
        """Count dropped samples."""
        self._failures += count

    def result(self) -> SplitStatistics:
        depths = tuple(self._metres.quantile(share) for share in (0.05, 0.5, 0.95))
        seen = [classes for classes in self._classes if classes.pixels.any()]
        return SplitStatistics(
            images=self._images,
            keywords=dict(self._keywords.most_common()),
            prompt_characters=tuple(self._prompt_characters),
            class_pixels={name: share for one in seen for name, share in one.shares(len(seen) > 1)},
            depth_metres=None if np.isnan(depths[0]) else (depths[0], depths[1], depths[2]),
            families=dict(self._families.most_common()),
            styles=dict(self._styles.most_common()),
            traits={trait: dict(words.most_common()) for trait, words in self._traits.items()},
            mean_rgb=self._mean_colour(),
            failures=self._failures,
        )

    def _mean_colour(self) -> tuple[float, float, float] | None:
        if not self._coloured:
            return None
        red, green, blue = (self._colour / self._coloured).tolist()
        return red, green, blue


class _ClassCounts:
    """Pixels of each class of one modality."""

    def __init__(self, modality: ClassMap) -> None:
        self.modality = modality
        self.pixels: NDArray[np.int64] = np.zeros(np.iinfo(modality.dtype).max + 1, dtype=np.int64)

    def update(self, label: NDArray[Any]) -> None:
        ids = np.asarray(label).ravel().astype(np.int64)
        self.pixels += np.bincount(ids[ids != self.modality.ignored], minlength=len(self.pixels))

    def shares(self, with_title: bool) -> list[tuple[str, float]]:
        """Class → its share of the labelled pixels, largest first."""
        return [(self._name(c, with_title), float(self.pixels[c] / self.pixels.sum())) for c in self._seen()]

    def _seen(self) -> list[int]:
        order = np.argsort(-self.pixels, kind="stable")
        return [int(c) for c in order[self.pixels[order] > 0]]

    def _name(self, class_id: int, with_title: bool) -> str:
        names = self.modality.classes
        name = names[class_id] if class_id < len(names) else f"class {class_id}"
        return f"{self.modality.title}: {name}" if with_title else name
