"""Number of threads: torch splits sums of floats over them, so the last digits of its results depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dmp_core.store.files import write_file

NOTE = ".threads"
"""File with the number, in a folder of work."""


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Compute with this number of threads on any machine; None: torch's default here. Yields the number."""
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
    """Resume work in a folder with the number of threads that it was begun with; yields the number."""
    note, known = folder / NOTE, None
    with suppress(FileNotFoundError, ValueError):  # a new folder, or one of an older version
        known = int(note.read_text())
    with torch_threads(known) as count:
        write_file(note, str(count).encode())
        yield count
