"""Sums of floats are split over threads, so torch's results depend on their number in the last digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dmp_core.store.files import write_file


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


@contextmanager
def threads_of_work(folder: Path) -> Iterator[int]:
    """Go on in a folder of unfinished work with as many threads as it was begun with; yields the number."""
    note, known = folder / ".threads", None
    with suppress(FileNotFoundError, ValueError):  # begun just now, or by an older version
        known = int(note.read_text())
    with torch_threads(known) as count:
        write_file(note, str(count).encode())
        yield count
