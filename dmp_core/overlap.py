"""Reading and encoding beside the network: in threads, since Pillow, zlib and numpy release the interpreter's lock.

Order is kept, and memory is bounded: one item is read ahead, and one batch is encoded behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_AT_ONCE = 256


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; while one is used, a thread makes the next one.

    An error of the iterable is raised where its item would have come.
    """
    source, end = iter(items), object()
    with _threads(1) as reader:
        coming: Future[Any] = reader.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, source, end)
            yield item


def behind(
    batches: Iterable[Sequence[Item]], encode: Callable[[Item], Result], workers: int
) -> Iterator[list[Future[Result]]]:
    """What `encode` makes of each batch's items, in threads: while a batch is encoded, the next one is made.

    The futures of a batch come when the next batch is there; whoever reads them gets their errors.
    """
    waiting: deque[list[Future[Result]]] = deque()
    with _threads(workers) as encoders:
        for batch in batches:
            waiting.append([encoders.submit(encode, item) for item in batch])
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `work` makes of each item, in order; some at a time, since each one that waits takes a kilobyte or two."""
    source = iter(items)
    with ThreadPoolExecutor() as pool:
        while part := list(islice(source, _AT_ONCE)):
            yield from pool.map(work, part)


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that nobody waits for if the block ends early, as after a signal: what has not begun is dropped."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
