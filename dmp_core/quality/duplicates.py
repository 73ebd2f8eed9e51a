"""Nearest neighbours among hashes and prompts: each one is compared with all others, in little memory per sample.

One row at a time, so that intermediate arrays stay in the processor's cache: larger blocks take several times as long.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 64

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
    for row, code in enumerate(hashes):
        bits = np.bitwise_count(others[: row if earlier else None] ^ code)
        if len(bits):
            index[row] = bits.argmin()
            distance[row] = bits[index[row]]
    return distance, index


def nearest_earlier_prompt(prompts: Iterable[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For every prompt, its similarity to the nearest earlier one, in [0, 1], and that one's index.

    Similarity is the Jaccard index of the sets of words, in lower case: words in common / words in either. The first
    prompt has no earlier one: NaN and -1.
    """
    words, sizes = _word_sets(prompts)
    # Holds words in common x words in both sets.
    lengths = sizes.astype(np.uint16 if sizes.max(initial=0) < 128 else np.int64)
    common = _CommonWords(words, sizes)
    likeness, index = np.full(len(sizes), np.nan), np.full(len(sizes), -1, dtype=np.int64)
    for row in range(1, len(sizes)):
        shared = common.with_earlier(row, lengths.dtype)
        both = lengths[:row] + lengths[row]
        top = shared.argmax()
        near = np.flatnonzero(shared * both[top] >= both * shared[top])  # no less alike than the one with most
        jaccard = shared[near] / np.maximum(both[near] - shared[near], 1)
        index[row] = near[jaccard.argmax()]
        likeness[row] = jaccard.max()
    return likeness, index


def _word_sets(prompts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The numbers of all prompts' words, one prompt after the other, no word twice; and how many each prompt has."""
    numbers: dict[str, int] = {}
    words, sizes = array("i"), array("q")
    for prompt in prompts:
        found = set(re.findall(r"\w+", prompt.lower()))
        words.extend(numbers.setdefault(word, len(numbers)) for word in found)
        sizes.append(len(found))
    return np.asarray(words), np.asarray(sizes)


class _CommonWords:
    """Counts the words that prompts have in common: the most frequent ones as bits, the others by lists of prompts."""

    def __init__(self, words: NDArray[np.int32], sizes: NDArray[np.int64]) -> None:
        owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        uses = np.bincount(words, minlength=1)
        frequent = np.argsort(-uses, kind="stable")[:_BITS]
        self.bits = np.zeros(len(sizes), np.uint64)
        for bit, word in enumerate(frequent):
            self.bits[owners[words == word]] |= np.uint64(1 << bit)
        rare = ~np.isin(words, frequent)
        words, owners = words[rare], owners[rare]
        order = np.argsort(words, kind="stable")
        self.owners = owners[order]
        """The prompts with each of the other words, by word."""
        self.ends = np.empty(len(order), np.int64)
        """Per use of such a word: where its earlier uses end in `owners`."""
        self.ends[order] = np.arange(len(order))
        self.starts = np.searchsorted(words, words, sorter=order)
        """… and where they begin."""
        self.first = np.searchsorted(owners, np.arange(len(sizes) + 1))
        """Per prompt: its first use of such a word."""

    def with_earlier(self, row: int, kind: np.dtype[Any]) -> NDArray[Any]:
        """How many words this prompt has in common with each earlier one."""
        shared = np.bitwise_count(self.bits[:row] & self.bits[row]).astype(kind)
        for use in range(self.first[row], self.first[row + 1]):
            shared[self.owners[self.starts[use] : self.ends[use]]] += 1
        return shared
