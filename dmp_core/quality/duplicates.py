"""Nearest neighbours among hashes and prompts, in blocks: memory grows with the number of samples, not its square."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256
_FAR = 255  # more than any distance of 64-bit hashes

Nearest = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Hamming distance in bits, and index of the nearest hash; both -1 if there is none. Ties go to the first."""


def nearest_earlier(hashes: NDArray[np.uint64]) -> Nearest:
    """For every hash, the nearest one before it. (N,) uint64 -> (N,), (N,)."""
    return _search(hashes, hashes, earlier=True)


def nearest(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> Nearest:
    """For every hash, the nearest of `others`. (N,), (M,) uint64 -> (N,), (N,)."""
    return _search(hashes, others, earlier=False)


def _search(hashes: NDArray[np.uint64], others: NDArray[np.uint64], earlier: bool) -> Nearest:
    distance, index = np.full(len(hashes), -1, dtype=np.int64), np.full(len(hashes), -1, dtype=np.int64)
    for start in range(0, len(hashes) if len(others) else 0, _BLOCK):
        block = hashes[start : start + _BLOCK]
        bits = np.bitwise_count(block[:, None] ^ others[None, : start + len(block) if earlier else None])
        if earlier:
            rows = start + np.arange(len(block))
            bits[np.arange(bits.shape[1])[None] >= rows[:, None]] = _FAR
        found = bits.argmin(axis=1)
        best = bits[np.arange(len(block)), found]
        distance[start : start + len(block)] = np.where(best == _FAR, -1, best.astype(np.int64))
        index[start : start + len(block)] = np.where(best == _FAR, -1, found)
    return distance, index


def nearest_earlier_prompt(prompts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For every prompt, its similarity to the nearest earlier one, in [0, 1], and that one's index.

    Similarity is the Jaccard index of the sets of words, in lower case: words in common / words in either. The first
    prompt has no earlier one: NaN and -1.
    """
    words = [set(re.findall(r"\w+", prompt.lower())) for prompt in prompts]
    sizes = np.array([len(found) for found in words], dtype=np.float64)
    uses = _uses(words)
    earlier: Counter[str] = Counter()
    likeness, index = np.full(len(words), np.nan), np.full(len(words), -1, dtype=np.int64)
    for number, found in enumerate(words):
        common = np.zeros(number)
        for word in found:
            common[uses[word][: earlier[word]]] += 1
        earlier.update(found)
        if number:
            jaccard = common / np.maximum(sizes[:number] + sizes[number] - common, 1)
            index[number] = jaccard.argmax()
            likeness[number] = jaccard[index[number]]
    return likeness, index


def _uses(words: Sequence[set[str]]) -> dict[str, NDArray[np.int64]]:
    """Word → the prompts that use it, in order."""
    uses: dict[str, list[int]] = defaultdict(list)
    for number, found in enumerate(words):
        for word in found:
            uses[word].append(number)
    return {word: np.array(numbers) for word, numbers in uses.items()}
