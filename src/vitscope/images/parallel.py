"""A map over many items by a few threads: results in order, and never far ahead of their use."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREAD_NAME = "vitscope-images"


def worker_count(workers: int) -> int:
    """Return ``workers``, or one per core that this process may use when it is 0."""
    if workers > 0:
        return workers
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Result]:
    """Yield ``function(item)`` for every item, in order, computed by threads.

    PIL decodes and resizes without holding the interpreter's lock, so threads use all cores.
    An exception of ``function`` is raised in its turn. When the generator ends, is closed, or is
    interrupted, what has not started is dropped and no thread is left.

    Args:
        function: called in a worker thread.
        items: taken only as results are.
        workers: threads; 0 takes one per core.
        ahead: at most so many items are begun beyond the last one yielded.
    """
    pool = ThreadPoolExecutor(worker_count(workers), thread_name_prefix=THREAD_NAME)
    remaining = iter(items)
    try:
        begun = deque[Future[Result]]()
        begun.extend(pool.submit(function, item) for item in islice(remaining, ahead))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
