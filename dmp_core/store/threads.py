"""Sums of floats are split over threads, so torch's results depend on their number in the last digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Compute with so many threads, whatever this machine has; None: as many as torch takes here. Yields the number."""
    import torch

    before = torch.get_num_threads()
    if count is None or count == before:
        yield before
        return
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
